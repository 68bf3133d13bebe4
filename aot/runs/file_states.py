"""Size and modification time of the files of clips: of many by listing the folders, of few by looking at each file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sized
from functools import cached_property
from pathlib import Path

from aot.paths import ClipPaths, RunPaths

# From so many clips on, listing all files of a run takes less time than looking at those of the clips.
MANY_CLIPS = 500

State = tuple[int, int]
"""Size in bytes and modification time in ns."""


class FileStates:
    """The states of the files of some clips, as they are when they are first asked for.

    Args:
        paths: of the run.
        clips: the clips; only their number counts.
    """

    def __init__(self, paths: RunPaths, clips: Sized) -> None:
        self._paths = paths
        self._is_listed = len(clips) >= MANY_CLIPS

    def result(self, clip_id: str) -> State | None:
        """Of a clip's result; None if there is none."""
        return self._results.get(clip_id) if self._is_listed else state_of(self._paths.clip(clip_id).result)

    def has_overlay(self, clip_id: str) -> bool:
        return clip_id in self._overlays if self._is_listed else self._paths.clip(clip_id).overlay.exists()

    def is_reported(self, clip_id: str) -> bool:
        """Whether the clip's part of the report was made from its result; see `aot.report.clip.is_made_from`."""
        data = self._reports.get(clip_id) if self._is_listed else state_of(self._paths.clip(clip_id).report.data)
        result = self.result(clip_id)
        return data is not None and result is not None and data[1] == result[1]

    @cached_property
    def _results(self) -> dict[str, State]:
        return _listed(self._paths.results, self._suffix(lambda clip: clip.result))

    @cached_property
    def _overlays(self) -> dict[str, State]:
        return _listed(self._paths.overlays, self._suffix(lambda clip: clip.overlay))

    @cached_property
    def _reports(self) -> dict[str, State]:
        return _listed(self._paths.clip_reports, self._suffix(lambda clip: clip.report.data))

    def _suffix(self, file_of: Callable[[ClipPaths], Path]) -> str:
        return file_of(self._paths.clip("clip")).suffix


def state_of(path: Path) -> State | None:
    """The state of a file; None if there is none."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_size, stat.st_mtime_ns


def _listed(folder: Path, suffix: str) -> dict[str, State]:
    """Clip id → state of every file below a folder with a suffix, except hidden ones."""
    found: dict[str, State] = {}
    unread = [("", os.fspath(folder))]
    while unread:
        above, place = unread.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir():
                        unread.append((f"{above}{entry.name}/", entry.path))
                    elif entry.name.endswith(suffix) and not entry.name.startswith("."):
                        stat = entry.stat()
                        found[above + entry.name.removesuffix(suffix)] = stat.st_size, stat.st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def results_below(paths: RunPaths) -> dict[str, State]:
    """Clip id → state of every result of a run."""
    return _listed(paths.results, paths.clip("clip").result.suffix)
