"""The ledgers: what every worker did, one JSON line an event, appended and never changed.

    started           an attempt begins: clip_id, content, rung, frame_interval, lean
    attempt failed    it ended badly, and another follows: class, error
    died              its process died; written by who watched it: class, error
    interrupted       it was given up: reason; is_counted when the clip's own length may be why
    done              the clip's file is whole: content, file_sha256, summary, scores
    ended             nothing is left to do for the clip: state; class and message of a failure

Every event tells `at`, `worker`, `host`, `pid`, `gpu` where the worker has one of its own, and `task` where a scheduler
runs it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aot.paths import RunPaths
from aot.system.files import write_errors
from aot.system.processes import host

# Who watches a worker touches its ledger this often while it is alive.
TOUCH_SECONDS = 15.0
# A ledger untouched for so long is that of a worker which is no more; file servers may lag by half a minute.
SILENT_SECONDS = 90.0


class Ledger:
    """One worker's ledger. Each event is one write of one line, so that a kill cannot leave half of two.

    Args:
        path: the file; made with the first event.
        task: what the scheduler calls the task that this worker is part of.
        on_event: called with every event that has been written.
    """

    def __init__(
        self,
        path: Path,
        *,
        task: str | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self._path = path
        self._on_event = on_event
        who = {"host": host(), "pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "task": task}
        self._who = {"worker": path.stem} | {key: value for key, value in who.items() if value is not None}

    def append(self, event: str, **details: Any) -> None:
        """Add an event with the time of now.

        Raises:
            WriteError: the run folder cannot be written, or the disk is full.
        """
        written = {"event": event, "at": datetime.now(timezone.utc).isoformat(), **self._who, **details}
        line = json.dumps(written)
        with write_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        self._on_event(written)

    def touch(self) -> None:
        """Show that the worker is alive."""
        with suppress(OSError):  # a sign of life that is late does no harm
            os.utime(self._path)


class LedgerTail:
    """Follows all ledgers of a run: each call hands out what has been written since the last one."""

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._offsets: dict[str, int] = {}

    def new_events(self) -> list[dict[str, Any]]:
        """Events not handed out yet, in the order of their time; half a line waits until it is whole."""
        events = []
        for path, size in _ledger_files(self._paths):
            offset = self._offsets.get(path.name, 0)
            if size <= offset:
                continue
            with path.open("rb") as file:
                file.seek(offset)
                lines = file.read().split(b"\n")
            self._offsets[path.name] = offset + sum(len(line) + 1 for line in lines[:-1])
            events += [event for line in lines[:-1] if (event := _event(line)) is not None]
        return sorted(events, key=_at)


def read_events(
    paths: RunPaths, kinds: Collection[str] = (), clip_ids: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Events of a run in the order of their time; a line that a crash cut short is left out.

    Args:
        kinds: these alone; none means all.
        clip_ids: those of these clips alone; None means all.
    """
    events = [event for event in _unsorted(paths, kinds) if clip_ids is None or event.get("clip_id") in clip_ids]
    yield from sorted(events, key=_at)


def last_done(paths: RunPaths, *details: str) -> dict[str, dict[str, Any]]:
    """The latest "done" event of every clip, see `last_events`."""
    return last_events(paths, "done", *details)


def last_events(paths: RunPaths, kind: str, *details: str) -> dict[str, dict[str, Any]]:
    """Every clip's latest event of a kind: its time and these details of it alone, there may be 100,000."""
    latest: dict[str, dict[str, Any]] = {}
    for event in _unsorted(paths, (kind,)):
        known = latest.get(event["clip_id"])
        if known is None or _at(known) <= _at(event):
            latest[event["clip_id"]] = {name: event.get(name) for name in ("at", *details)}
    return latest


def silent_seconds(paths: RunPaths, worker: str) -> float:
    """How long ago a worker's ledger was last written or touched."""
    try:
        return max(0.0, time.time() - paths.ledger(worker).stat().st_mtime)
    except OSError:
        return float("inf")


def _unsorted(paths: RunPaths, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    # Lines begin with their event, so most can be told apart before they are parsed: there may be a million.
    prefixes = tuple(f'{{"event": "{kind}"'.encode() for kind in kinds)
    for path, _ in _ledger_files(paths):
        with path.open("rb") as file:
            for line in file:
                if line.startswith(prefixes or b"{") and (event := _event(line)) is not None:
                    yield event


def _ledger_files(paths: RunPaths) -> list[tuple[Path, int]]:
    """All ledgers and their sizes in bytes, by name."""
    try:
        with os.scandir(paths.ledgers) as entries:
            ledgers = [entry for entry in entries if entry.name.endswith(".jsonl") and entry.is_file()]
            found = [(Path(entry.path), entry.stat().st_size) for entry in ledgers]
    except FileNotFoundError:
        return []
    return sorted(found)


def _event(line: bytes) -> dict[str, Any] | None:
    """What a line says; nothing where it is no event, or one that a crash or a stranger has garbled."""
    try:
        event = json.loads(line)
        datetime.fromisoformat(event["at"])
        return event if isinstance(event["clip_id"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _at(event: dict[str, Any]) -> str:
    return str(event["at"])
