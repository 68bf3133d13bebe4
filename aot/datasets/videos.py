"""A folder of videos, nested or not, with a prompt manifest."""

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
        root: the folder; hidden files and folders are left alone.
        prompts: the prompt manifest; a clip without an entry is not run.
        masks_pattern: where the annotated masks of a clip lie, a path with {clip_id} (day1/ep_003) and {folder}
            (day1) filled in: a folder of PNGs named by source frame. None: there are none.
        tracks_pattern: likewise for an .npz with points_xy (N, T, 2), visible (N, T) and perhaps annotated (T,).
    """

    def __init__(
        self, root: Path, prompts: Path, masks_pattern: Path | None = None, tracks_pattern: Path | None = None
    ) -> None:
        self.root = root
        self.prompts = prompts
        self._patterns = {"masks_pattern": masks_pattern, "tracks_pattern": tracks_pattern}
        self._where("", "masks_pattern"), self._where("", "tracks_pattern")

    def clips(self) -> list[Clip]:
        if not self.root.is_dir():
            raise DatasetError(f"dataset.root={self.root} is not a folder; expected the folder that holds the videos")
        clips = [
            Clip(clip_id=path.relative_to(self.root).with_suffix("").as_posix(), source=path)
            for path in _files_below(self.root)
            if path.suffix.lower() in VIDEO_SUFFIXES
        ]
        if not clips:
            raise DatasetError(
                f"dataset.root={self.root} holds no video; expected files ending in {' '.join(sorted(VIDEO_SUFFIXES))}"
            )
        return assign_prompts(clips, self.prompts, dataset="videos", root=self.root)

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        masks, tracks = self._where(clip_id, "masks_pattern"), self._where(clip_id, "tracks_pattern")
        masks = masks if masks and masks.is_dir() else None
        tracks = tracks if tracks and tracks.is_file() else None
        return AnnotatedTruth(masks, tracks) if masks or tracks else None

    def _where(self, clip_id: str, option: str) -> Path | None:
        pattern = self._patterns[option]
        if pattern is None:
            return None
        try:
            return Path(str(pattern).format(clip_id=clip_id, folder=Path(clip_id).parent.as_posix()))
        except (KeyError, IndexError, ValueError, AttributeError) as exc:
            raise ConfigError(
                f"dataset.{option}={pattern}: expected a path in which {{clip_id}} and {{folder}} may stand"
            ) from exc


def _files_below(folder: Path, above: frozenset[str] = frozenset()) -> Iterator[Path]:
    """Files in name order; linked folders are followed, but never round in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        if entry.is_dir():
            yield from _files_below(Path(entry.path), above | {real})
        elif entry.is_file():
            yield Path(entry.path)
