"""The dataset: a list of clips with their prompts, and what is known to be true of them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Protocol

from aot.datasets.ground_truth import GroundTruth
from aot.errors import DatasetError
from aot.paths import CLIP_FILE_SUFFIXES
from aot.types import Clip

_MAX_NAME_BYTES = 255 - max(map(len, CLIP_FILE_SUFFIXES))

# What would move the cursor, or end a line, where a clip id is shown.
_CONTROLS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


class Dataset(Protocol):
    """Clips that are found and named without opening a video."""

    def clips(self) -> list[Clip]:
        """All clips, with the prompts they have; a clip may have none.

        Raises:
            DatasetError: the files are not as the dataset's layout wants them.
            ConfigError: the prompt manifest is wrong.
        """
        ...

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        """What is known to be true of the clip; None where nothing is."""
        ...


def check_clip_ids(clips: Sequence[Clip]) -> None:
    """Refuse ids that are not unique, or that cannot name files of their own below the output folder.

    An id is the path of its files without their suffixes, so that each can be told from the other.

    Raises:
        DatasetError: naming the clips.
    """
    sources: dict[str, Clip] = {}
    for clip in clips:
        check_clip_id(clip.clip_id)
        other = sources.setdefault(clip.clip_id, clip)
        if other is not clip:
            raise DatasetError(
                f"{other.source} and {clip.source} would both be the clip {clip.clip_id!r}; rename one, "
                f"or move one out of the dataset's root"
            )
    for clip in clips:
        for folder in PurePosixPath(clip.clip_id).parents:
            if folder.suffix in CLIP_FILE_SUFFIXES and str(folder.with_suffix("")) in sources:
                raise DatasetError(
                    f"the clip {clip.clip_id!r} lies in a folder called like the {folder.suffix} file of the clip "
                    f"{str(folder.with_suffix(''))!r}; rename one of them"
                )


def check_clip_id(clip_id: str) -> None:
    """See that a clip id is a path below the run folder, and can be shown.

    Raises:
        DatasetError: it is not.
    """
    path = PurePosixPath(clip_id)
    if not path.parts or clip_id.startswith("/") or ".." in path.parts or "\0" in clip_id or str(path) != clip_id:
        raise DatasetError(f"clip id {clip_id!r}: expected a relative path without '..'")
    try:
        longest = max(len(part.encode()) for part in path.parts)
    except UnicodeEncodeError:
        raise DatasetError(f"clip id {clip_id!r} is not UTF-8; rename the file or folder") from None
    if _CONTROLS.search(clip_id):
        raise DatasetError(f"clip id {clip_id!r} has control characters; rename the file or folder")
    if longest > _MAX_NAME_BYTES:
        raise DatasetError(
            f"clip id {clip_id!r}: a part of it is {longest} bytes long, which leaves no room for a suffix in the "
            f"255 of most file systems; expected {_MAX_NAME_BYTES} at most"
        )


def select_clips(
    clips: Iterable[Clip],
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    limit: int | None,
    start_seconds: float | None,
    end_seconds: float | None,
) -> list[Clip]:
    """Choose clips for a run, and the time range of each.

    Args:
        clips: all clips of the dataset.
        include, exclude: clip ids or patterns (`day1/*`); nothing included means everything.
        limit: at most this many, the first by id.
        start_seconds, end_seconds: presentation times; frames outside [start, end) are left out. In a clip that is
            itself a time range of its video they count from its beginning.
    Raises:
        DatasetError: a pattern matches no clip; all such patterns at once.
    """
    by_id = {clip.clip_id: clip for clip in clips}
    mistakes = []
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not fnmatch.filter(by_id, pattern) and pattern not in by_id:
                near = get_close_matches(pattern, by_id, n=3)
                hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(by_id)} clips"
                mistakes.append(f"dataset.{option}: {pattern!r} matches no clip of the dataset; {hint}")
    if mistakes:
        raise DatasetError("\n".join(mistakes))
    chosen = [
        _cut(clip, start_seconds, end_seconds)
        for clip_id, clip in sorted(by_id.items())
        if (not include or _matches(clip_id, include)) and not _matches(clip_id, exclude)
    ]
    return chosen[:limit]


def _cut(clip: Clip, start_seconds: float | None, end_seconds: float | None) -> Clip:
    begin = clip.start_seconds or 0.0
    start = clip.start_seconds if start_seconds is None else begin + start_seconds
    ends = [end for end in (clip.end_seconds, None if end_seconds is None else begin + end_seconds) if end is not None]
    return replace(clip, start_seconds=start, end_seconds=min(ends, default=None))


def _matches(clip_id: str, patterns: Sequence[str]) -> bool:
    return any(clip_id == pattern or fnmatch.fnmatchcase(clip_id, pattern) for pattern in patterns)
