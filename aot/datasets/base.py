"""The interface of datasets, the rules for clip ids, and the selection of clips for a run."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol, runtime_checkable

from aot.datasets.ground_truth import GroundTruth
from aot.errors import DatasetError
from aot.paths import CLIP_FILE_SUFFIXES
from aot.system.listing import composed
from aot.system.nearest import suggestion
from aot.system.os_errors import os_problem
from aot.system.text import counted, first_names
from aot.types import Clip

_MAX_NAMED = 10
_MAX_NAME_BYTES = 255 - max(map(len, CLIP_FILE_SUFFIXES))

# Characters that move the cursor or end a line where a clip id is printed.
# Up to 200 letters, digits, "-" and "_" between slashes.
_ORDINARY_ID = re.compile(r"[A-Za-z0-9_-]{1,200}(?:/[A-Za-z0-9_-]{1,200})*")
_CONTROL_CHARACTERS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


class Dataset(Protocol):
    """A list of clips, found without opening a video, and their ground truth."""

    def clips(self) -> list[Clip]:
        """All clips with their prompts; a clip may have no prompt.

        Raises:
            DatasetError: files are missing, or do not have the layout of the dataset.
            ConfigError: the prompt manifest is missing or not valid.
        """
        ...

    def ground_truth(self, clip_id: str) -> GroundTruth | None:
        """The ground truth of a clip; None: there is none.

        Raises:
            DatasetError: an annotation file is missing or has another layout.
        """
        ...


@runtime_checkable
class ReportsUnusableClips(Protocol):
    """A dataset whose clips can be unusable one by one, such as one with an empty folder of frames."""

    unusable: Mapping[str, str]
    """Clip id → why it cannot be processed; filled by `clips()`, in which such a clip has no prompts."""


@runtime_checkable
class ReportsSkippedPaths(Protocol):
    """A dataset that looks for clips in folders, some of which cannot be read."""

    skipped_paths: tuple[str, ...]
    """Files and folders that were left out, each with the reason; filled by `clips()`."""


def skipped_paths(dataset: Dataset) -> tuple[str, ...]:
    """Files and folders that the dataset has left out when it listed its clips, each with the reason."""
    return dataset.skipped_paths if isinstance(dataset, ReportsSkippedPaths) else ()


def unusable_clips(dataset: Dataset) -> Mapping[str, str]:
    """Clip id → why it cannot be processed, of the clips that the dataset has just listed."""
    return dataset.unusable if isinstance(dataset, ReportsUnusableClips) else {}


def read_clips(dataset: Dataset) -> list[Clip]:
    """All clips of a dataset, with checked ids.

    Args:
        dataset: of any kind.
    Raises:
        DatasetError, ConfigError: as `Dataset.clips`; also if a file or folder cannot be read, or if ids clash.
    """
    with _os_errors_as_dataset_errors():
        clips = dataset.clips()
    check_clip_ids(clips)
    return clips


def read_ground_truth(dataset: Dataset, clip_id: str) -> GroundTruth | None:
    """The ground truth of a clip; None: there is none.

    Args:
        dataset: of any kind.
        clip_id: of one of its clips.
    Raises:
        DatasetError: as `Dataset.ground_truth`; also if a file cannot be read.
    """
    with _os_errors_as_dataset_errors():
        return dataset.ground_truth(clip_id)


@contextmanager
def _os_errors_as_dataset_errors() -> Iterator[None]:
    """Report a file or folder that the operating system refuses to read as a `DatasetError`."""
    try:
        yield
    except OSError as exc:
        raise DatasetError(f"{exc.filename or 'the dataset'} cannot be read: {os_problem(exc)}") from exc


def check_clip_ids(clips: Sequence[Clip]) -> None:
    """Refuse ids that are not unique, or with which the output files of two clips would have the same path.

    The id of a clip is the path of its output files, without their suffixes.

    Raises:
        DatasetError: gives the clips.
    """
    sources: dict[str, Clip] = {}
    for clip in clips:
        check_clip_id(clip.clip_id)
        other = sources.setdefault(clip.clip_id, clip)
        if other is not clip:
            raise DatasetError(
                f"{other.source} and {clip.source} have the same clip id {clip.clip_id!r}; expected unique ids: "
                f"rename one, or move it out of the dataset's root"
            )
    for clip in clips:
        for folder in PurePosixPath(clip.clip_id).parents:
            if folder.suffix in CLIP_FILE_SUFFIXES and str(folder.with_suffix("")) in sources:
                raise DatasetError(
                    f"the clip {clip.clip_id!r} is in a folder with the same name as the {folder.suffix} file of the "
                    f"clip {str(folder.with_suffix(''))!r}; rename one of them"
                )


def check_clip_id(clip_id: str) -> None:
    """Check that a clip id is a path below the run folder and can be printed.

    Raises:
        DatasetError: the id is refused.
    """
    if _ORDINARY_ID.fullmatch(clip_id):
        return  # most ids: datasets may have 100,000
    path = PurePosixPath(clip_id)
    if not path.parts or clip_id.startswith("/") or ".." in path.parts or "\0" in clip_id or str(path) != clip_id:
        raise DatasetError(f"clip id {clip_id!r}: expected a relative path without '..'")
    try:
        longest = max(len(part.encode()) for part in path.parts)
    except UnicodeEncodeError:
        raise DatasetError(f"clip id {clip_id!r} is not UTF-8; rename the file or folder") from None
    if _CONTROL_CHARACTERS.search(clip_id):
        raise DatasetError(f"clip id {clip_id!r} contains control characters; rename the file or folder")
    if longest > _MAX_NAME_BYTES:
        raise DatasetError(
            f"clip id {clip_id!r}: a part of it is {longest} bytes long; expected at most {_MAX_NAME_BYTES}, because "
            f"most file systems limit names to 255 bytes, and output files add a suffix: rename the file or folder"
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
    """Select the clips of a run and set the time range of each.

    Args:
        clips: all clips of the dataset.
        include, exclude: clip ids or patterns (`day1/*`); an empty `include` selects all clips.
        limit: maximum number of clips, the first ones in the order of their ids; None: no limit.
        start_seconds, end_seconds: presentation times in s; frames outside [start, end) are skipped. If a clip is a
            time range of its video, they count from the start of this range.
    Returns:
        The selected clips, ordered by id.
    Raises:
        DatasetError: a pattern matches no clip; lists all such patterns.
    """
    by_id = {clip.clip_id: clip for clip in clips}
    include, exclude = ([composed(pattern) for pattern in patterns] for patterns in (include, exclude))
    names = {composed(clip_id) for clip_id in by_id}
    errors = []
    for option, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not fnmatch.filter(names, pattern) and pattern not in names:
                hint = suggestion(pattern, by_id, otherwise=_clip_list(by_id))
                errors.append(f"dataset.{option}: {pattern!r} matches no clip of the dataset; {hint}")
    if errors:
        raise DatasetError("\n".join(errors))
    chosen = [
        _cut(clip, start_seconds, end_seconds)
        for clip_id, clip in sorted(by_id.items())
        if (not include or _matches(clip_id, include)) and not _matches(clip_id, exclude)
    ]
    return chosen[:limit]


def _clip_list(clip_ids: Iterable[str]) -> str:
    """The number of clips and the first ids, as a sentence."""
    ids = sorted(clip_ids)
    return f"it has {counted(len(ids), 'clip')}: {first_names(ids, at_most=_MAX_NAMED)}"


def _cut(clip: Clip, start_seconds: float | None, end_seconds: float | None) -> Clip:
    if start_seconds is None and end_seconds is None:
        return clip
    if clip.expected_frames is not None:
        # Where the range begins in the file is known only when it is compared with the expected frames.
        return replace(clip, part_seconds=(start_seconds, end_seconds))
    begin = clip.start_seconds or 0.0
    start = clip.start_seconds if start_seconds is None else begin + start_seconds
    ends = [end for end in (clip.end_seconds, None if end_seconds is None else begin + end_seconds) if end is not None]
    return replace(clip, start_seconds=start, end_seconds=min(ends, default=None))


def _matches(clip_id: str, patterns: Sequence[str]) -> bool:
    name = composed(clip_id)
    return any(name == pattern or fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
