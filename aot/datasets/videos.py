"""A folder of videos, with or without subfolders, and a prompt manifest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from aot.datasets.annotations import AnnotatedTruth
from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.manifest.assign import assign_prompts
from aot.types import Clip

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .gif .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()  # what FFmpeg opens
)


class Videos:
    """Every video file below a folder.

    Args:
        root: the folder; hidden files and folders are ignored.
        prompts: prompt manifest; clips without an entry are not run.
        masks_pattern: path of the annotated masks of a clip, a folder of PNGs named by source frame; {clip_id} (such as
            day1/ep_003) and {folder} (day1) are replaced. None: there are no masks.
        tracks_pattern: likewise for the annotated tracks, an npz file as described in `AnnotatedTruth`.
    Raises:
        ConfigError: a pattern contains another name in braces.
    """

    def __init__(
        self, root: Path, prompts: Path, masks_pattern: Path | None = None, tracks_pattern: Path | None = None
    ) -> None:
        self.root = root
        self.prompts = prompts
        self._patterns = {"masks_pattern": masks_pattern, "tracks_pattern": tracks_pattern}
        for option in self._patterns:
            self._truth_path("", option)

    def clips(self) -> list[Clip]:
        if not self.root.is_dir():
            raise DatasetError(f"dataset.root={self.root} is not a folder; expected the folder of the videos")
        clips = list_videos(self.root)
        if not clips:
            raise DatasetError(
                f"dataset.root={self.root} contains no video; expected files with one of the suffixes "
                f"{' '.join(sorted(VIDEO_SUFFIXES))}"
            )
        return assign_prompts(clips, self.prompts, dataset="videos", root=self.root)

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        masks, tracks = self._truth_path(clip_id, "masks_pattern"), self._truth_path(clip_id, "tracks_pattern")
        masks = masks if masks and masks.is_dir() else None
        tracks = tracks if tracks and tracks.is_file() else None
        return AnnotatedTruth(masks, tracks) if masks or tracks else None

    def _truth_path(self, clip_id: str, option: str) -> Path | None:
        """Path of a clip's annotations according to a pattern; None: there is no pattern."""
        pattern = self._patterns[option]
        if pattern is None:
            return None
        try:
            return Path(str(pattern).format(clip_id=clip_id, folder=Path(clip_id).parent.as_posix()))
        except (KeyError, IndexError, ValueError, AttributeError) as exc:
            raise ConfigError(
                f"dataset.{option}={pattern}: expected a path with no names in braces except {{clip_id}} and {{folder}}"
            ) from exc


def list_videos(root: Path) -> list[Clip]:
    """Every video below a folder, without prompts."""
    return [
        Clip(clip_id=path.relative_to(root).with_suffix("").as_posix(), source=path)
        for path in _files_below(root)
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]


def _files_below(folder: Path, parents: frozenset[str] = frozenset()) -> Iterator[Path]:
    """All files below a folder, ordered by name; symbolic links to folders are followed, except to a parent folder."""
    real = os.path.realpath(folder)
    if real in parents:
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            yield from _files_below(Path(entry.path), parents | {real})
        elif entry.is_file():
            yield Path(entry.path)
