"""A folder of videos, with or without subfolders, and a prompt manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from aot.datasets.annotations import AnnotatedTruth
from aot.datasets.ground_truth import GroundTruth
from aot.errors import ConfigError, DatasetError
from aot.manifest.assign import assign_prompts
from aot.system.listing import Tree, list_tree
from aot.system.text import first_names
from aot.types import Clip

# What FFmpeg opens.
VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .dv .f4v .flv .gif .m2t .m2ts .m2v .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogm .ogv .ts "
    ".vob .webm .wmv".split()
)


class Videos:
    """Every video file below a folder.

    Args:
        root: the folder; hidden files and folders are ignored.
        prompts: prompt manifest; clips without an entry are not run.
        masks_pattern: path of the annotated masks of a clip, a folder of PNGs named by source frame; {clip_id} (such as
            day1/ep_003) and {folder} (day1) are replaced. None: there are no masks.
        tracks_pattern: likewise for the annotated tracks, an npz file as described in `AnnotatedTruth`.
        stream: number of the video stream to read of files with several, from 0; None: the one that the `ffmpeg`
            command takes, which is the largest, preferably the default one, and the first of equal ones.
    Raises:
        ConfigError: a pattern contains another name in braces.
    """

    def __init__(
        self,
        root: Path,
        prompts: Path,
        masks_pattern: Path | None = None,
        tracks_pattern: Path | None = None,
        stream: Annotated[int, Ge(0)] | None = None,
    ) -> None:
        self.root = root
        self.prompts = prompts
        self.skipped_paths: tuple[str, ...] = ()
        self._stream = stream
        self._patterns = {"masks_pattern": masks_pattern, "tracks_pattern": tracks_pattern}
        for option in self._patterns:
            self._truth_path("", option)

    def clips(self) -> list[Clip]:
        if not self.root.is_dir():
            raise DatasetError(f"dataset.root={self.root} is not a folder; expected the folder of the videos")
        tree = list_tree(self.root)
        clips = _listed(self.root, tree, self._stream)
        # What cannot be listed, or leads nowhere, is named beside the clips that can be processed.
        broken = [f"{path} (a link to something that does not exist)" for path in tree.broken_links if not path.suffix]
        self.skipped_paths = tuple(tree.skipped + broken)
        if not clips:
            found = f"; cannot be read: {first_names(self.skipped_paths)}" if self.skipped_paths else ""
            raise DatasetError(
                f"dataset.root={self.root} contains no video; expected files with one of the suffixes "
                f"{' '.join(sorted(VIDEO_SUFFIXES))}{found}"
            )
        not_clips = _other_files(self.root, tree)
        return assign_prompts(clips, self.prompts, dataset="videos", root=self.root, not_clips=not_clips)

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


def list_videos(root: Path, stream: int | None = None) -> list[Clip]:
    """Every video below a folder, without prompts; a link to a missing video is one, whose processing reports it."""
    return _listed(root, list_tree(root), stream)


def _listed(root: Path, tree: Tree, stream: int | None) -> list[Clip]:
    return [
        Clip(clip_id=path.relative_to(root).with_suffix("").as_posix(), source=path, stream=stream)
        for path in sorted([*tree.files, *tree.broken_links])
        if path.suffix.lower() in VIDEO_SUFFIXES
    ]


def _other_files(root: Path, tree: Tree) -> dict[str, str]:
    """Clip id that a file would have → why it is none, of the files that are not videos according to their names."""
    return {
        path.relative_to(root).with_suffix("").as_posix(): f"{path} is no video according to its suffix; rename it, or "
        f"convert it to one of {' '.join(sorted(VIDEO_SUFFIXES))}"
        for path in tree.files
        if path.suffix.lower() not in VIDEO_SUFFIXES
    }
