"""The ledgers: the events of every worker, one JSON line per event, appended and never changed.

    started           an attempt starts: clip_id, content (digest of the clip's fingerprint), work ("all", or "overlay"
                      for the drawings of a finished clip), rung, frame_interval, lean
    reading ahead     a clip is read while another one is computed: as "started", for the attempt that will follow
    read ahead        its end, in time for the attempt or not: error if its process died
    attempt failed    the attempt failed, and another may follow: class, error
    died              the worker's process died; written by the process that supervises it: class, error
    retry requested   the user has asked to retry the clip: earlier attempts do not count any more
    redo requested    the user has asked to compute a finished clip again: its earlier results do not count any more
    interrupted       the attempt was abandoned: reason; is_counted if it had all the time of a task; by_scheduler if a
                      signal of the scheduler was the reason
    done              the clip's result is complete: content (fingerprint), file_bytes, is_partial (whether some of its
                      objects have failed), summary
    taken up          a complete result without such an event, because its worker was stopped before it recorded it: as
                      "done", from the file; written by the worker that draws the clip. Or a result of another run with
                      the same settings that was linked or copied: origin is its path
    renamed           the names of the objects were written into a complete result: as "done", from the file
    scored            the first event of the drawing of a complete result: file_sha256, scores (empty without a ground
                      truth). Version 0.1 recorded both in "done".
    ended             nothing is left to do for the clip: state; seconds per drawing, and the style of the overlay;
                      class and message of a failure

Every event also has `at` (UTC; of a clip, later than that of every event that was known before, whatever the clocks of
the machines show), `worker`, `host`, `pid`, `gpu` (if the worker has its own GPU) and `task` (if a scheduler
runs it).
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from aot.errors import RunDeleted
from aot.paths import RunPaths
from aot.runs.ledger_files import (
    LedgerFile,
    Part,
    ended_names,
    ledger_files,
    lines_of,
    open_ledgers,
    opened,
)
from aot.system.files import write_errors
from aot.system.processes import host

# Supervisors touch the ledger of a living worker this often.
TOUCH_SECONDS = 15.0
# The worker of a ledger that has not been touched for this long is dead; file servers may lag by half a minute.
SILENT_SECONDS = 90.0

# Up to so many clips, it is faster to search a line for their ids than to parse it.
_FEW_CLIPS = 20
_SUMMARY = b', "summary": {'
# What "scored" records of a clip.
_SCORED = frozenset({"file_sha256", "scores"})

COMPLETE = ("done", "taken up", "renamed")
"""The events that record a complete result."""


class Ledger:
    """One worker's ledger. Each event is one write of one line, so that a kill leaves at most one incomplete line.

    Args:
        paths: of the run, which has a run.json.
        worker: its name, and that of the file, which is created with the first event.
        scheduler_task: the scheduler's id of the task that runs the worker; None: no scheduler.
        on_event: called with every event that has been written.
    """

    def __init__(
        self,
        paths: RunPaths,
        worker: str,
        *,
        scheduler_task: str | None = None,
        on_event: Callable[[dict[str, Any]], None] = lambda event: None,
    ) -> None:
        self._paths = paths
        self._path = paths.ledger(worker)
        self._on_event = on_event
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES") or None
        origin = {"worker": worker, "host": host(), "pid": os.getpid(), "gpu": gpu, "task": scheduler_task}
        # A worker appends from two threads.
        self._lock = threading.Lock()
        self._latest = datetime.min.replace(tzinfo=timezone.utc)
        self._origin = {key: value for key, value in origin.items() if value is not None}

    def follow(self, at: str) -> None:
        """Give all further events a later time than this one, even if the clock of this machine is behind.

        Args:
            at: of an event that is known, as in `event["at"]`; empty: none is.
        """
        if at:
            with self._lock:
                self._latest = max(self._latest, datetime.fromisoformat(at))

    @property
    def latest(self) -> str:
        """Time of the latest event that is known, as in `event["at"]`."""
        return self._latest.isoformat()

    def append(self, event: str, **details: Any) -> None:
        """Append an event with the current time, or with one just after the latest event that is known.

        Raises:
            RunDeleted: the run folder was deleted.
            WriteError: the run folder cannot be written, or the disk is full.
        """
        self.require_run()
        with self._lock:
            self._append(event, details)

    def _append(self, event: str, details: Mapping[str, Any]) -> None:
        self._latest = max(datetime.now(timezone.utc), self._latest + timedelta(microseconds=1))
        written = {"event": event, "at": self._latest.isoformat(), **self._origin, **details}
        line = json.dumps(written)
        with write_errors(self._path):
            self._path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        self._on_event(written)

    def require_run(self) -> None:
        """Raise RunDeleted if the run folder was deleted; whoever writes to it would make it again."""
        require_run(self._paths)

    def touch(self) -> None:
        """Show that the worker is alive.

        Raises:
            RunDeleted: the run folder was deleted.
        """
        self.require_run()
        with suppress(OSError):  # a missed touch does no harm
            os.utime(self._path)


def require_run(paths: RunPaths) -> None:
    """Raise RunDeleted if a run folder was deleted, or at least its run.json."""
    if _is_missing(paths.run_json):
        raise RunDeleted(
            f"{paths.run_json} was deleted while clips were processed, and nothing more is written to the run folder; "
            f"run the same command again to process the clips"
        )


class LedgerTail:
    """Follows all ledgers of a run: each call returns what has been written since the last one.

    Ledgers that have ended are read once more; then only those of workers that may be alive are looked at.

    Args:
        paths: of the run.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._offsets: dict[str, int] = {}
        """Worker → how many bytes of its ledger were read, while it may grow."""
        self._known: set[str] = set()
        """Files of ended ledgers that were read."""

    def skip(self) -> None:
        """Return none of the events that were written until now; no file is opened."""
        self._offsets = {path.stem: stat.st_size for path, stat in open_ledgers(self._paths)}
        self._known = ended_names(self._paths)

    def new_events(self, on_batch: Callable[[Any], None] | None = None) -> list[dict[str, Any]]:
        """Events that were not returned before, by time; an incomplete line is returned once it is complete.

        Args:
            on_batch: called with the summary of every batch of which nothing was returned before, in place of returning
                its events; None: they are returned.
        """
        events: list[dict[str, Any]] = []
        files = ledger_files(self._paths, self._known)
        # Ended ones first: a worker of the same name may have written a new ledger since.
        for file in sorted(files, key=lambda file: file.stat is not None):
            if file.stat is not None:
                worker = file.path.stem
                if file.stat.st_size > self._offsets.get(worker, 0):
                    read, self._offsets[worker] = self._read(file, file.parts, self._offsets.get(worker, 0))
                    events += read
                continue
            unread = [part for part in file.parts if f"{part.worker}.jsonl" not in self._known]
            is_new = (
                file.is_batch
                and len(unread) == len(file.parts)
                and self._offsets.keys().isdisjoint(part.worker for part in unread)
            )
            if on_batch is not None and is_new and file.summary is not None:
                on_batch(file.summary)
            else:
                for part in unread:
                    events += self._read(file, (part,), self._offsets.pop(part.worker, 0))[0]
            self._known.add(file.path.name)
            self._known -= {f"{part.worker}.jsonl" for part in file.parts if file.is_batch}
        return sorted(events, key=_at)

    def _read(self, file: LedgerFile, parts: Sequence[Part], offset: int) -> tuple[list[dict[str, Any]], int]:
        """The events of a ledger from an offset on, and the offset of the first incomplete line."""
        (part,) = parts
        with opened(self._paths, replace(file, parts=(part,))) as (stream, (place,)):
            stream.seek(place.start + offset)
            content = stream.read() if place.end is None else stream.read(place.end - place.start - offset)
        lines = content.split(b"\n")
        complete = lines[:-1] if file.stat is not None or not lines[-1] else lines
        found = [event for line in complete if (event := _event(line)) is not None]
        return found, offset + sum(len(line) + 1 for line in lines[:-1])


def read_events(
    paths: RunPaths,
    kinds: Collection[str] = (),
    clip_ids: Collection[str] | None = None,
    *,
    files: Sequence[LedgerFile] | None = None,
) -> Iterator[dict[str, Any]]:
    """Events of a run, by time; incomplete lines, left by a crash, are skipped.

    Args:
        paths: of the run.
        kinds: names of the events to return; empty: all.
        clip_ids: the clips whose events to return; None: all.
        files: the ledgers to read; None: all.
    """
    found = _unsorted(paths, kinds, files, clip_ids)
    events = [event for event in found if clip_ids is None or event.get("clip_id") in clip_ids]
    yield from sorted(events, key=_at)


def last_done(paths: RunPaths, *details: str, files: Sequence[LedgerFile] | None = None) -> dict[str, dict[str, Any]]:
    """The latest record of a result of every clip, see `last_events`; `file_sha256` and `scores` are from "scored"."""
    done = last_events(paths, COMPLETE, *details, files=files)
    if scored_details := _SCORED.intersection(details):
        for clip_id, scored in last_events(paths, ("scored",), *scored_details, files=files).items():
            if clip_id in done and _at(done[clip_id]) <= _at(scored):
                done[clip_id] |= {name: scored[name] for name in scored_details}
    return done


def last_states(
    paths: RunPaths, *, files: Sequence[LedgerFile] | None = None
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """What a plan needs of every clip, read in one pass: the latest result, end, and request to do it again.

    Args:
        paths: of the run.
        files: the ledgers to read; None: all.
    Returns:
        As `last_done(paths, "content", "file_bytes", "file_sha256", "is_partial")`, `last_events(paths, ("ended",),
        "overlay")` and `last_events(paths, ("redo requested",))`.
    """
    done: dict[str, dict[str, Any]] = {}
    scored: dict[str, dict[str, Any]] = {}
    ended: dict[str, dict[str, Any]] = {}
    redone: dict[str, dict[str, Any]] = {}
    results = done, ("content", "file_bytes", "file_sha256", "is_partial")
    wanted: dict[str, tuple[dict[str, dict[str, Any]], tuple[str, ...]]] = {
        **dict.fromkeys(COMPLETE, results),
        "scored": (scored, ("file_sha256",)),
        "ended": (ended, ("overlay",)),
        "redo requested": (redone, ()),
    }
    for event in _unsorted(paths, wanted.keys(), files, is_head=True):
        latest, details = wanted[event["event"]]
        known = latest.get(event["clip_id"])
        if known is None or known["at"] <= event["at"]:
            latest[event["clip_id"]] = {name: event.get(name) for name in ("at", *details)}
    for clip_id, event in scored.items():
        if clip_id in done and done[clip_id]["at"] <= event["at"]:
            done[clip_id]["file_sha256"] = event["file_sha256"]
    return done, ended, redone


def last_computed(paths: RunPaths) -> dict[str, dict[str, Any]]:
    """The latest "started" event of every clip, of an attempt that computes its result; see `last_events`."""
    return last_events(paths, ("started",), where=("work", "all"))


def last_events(
    paths: RunPaths,
    kinds: tuple[str, ...],
    *details: str,
    where: tuple[str, Any] | None = None,
    files: Sequence[LedgerFile] | None = None,
) -> dict[str, dict[str, Any]]:
    """Clip id → the latest event of some kinds: only its time and these details, because there may be 100,000 clips.

    Args:
        paths: of the run.
        kinds: names of the events.
        details: keys of the event to return besides `at`.
        where: a key and the value that it must have; None: all events of these kinds.
        files: the ledgers to read; None: all.
    """
    latest: dict[str, dict[str, Any]] = {}
    for event in _unsorted(paths, kinds, files, is_head="summary" not in details):
        if where is not None and event.get(where[0]) != where[1]:
            continue
        known = latest.get(event["clip_id"])
        if known is None or _at(known) <= _at(event):
            latest[event["clip_id"]] = {name: event.get(name) for name in ("at", *details)}
    return latest


def all_events(paths: RunPaths, kind: str, *details: str) -> Iterator[dict[str, Any]]:
    """All events of a kind, those of one worker in their order: `clip_id`, `at` and these details, None if unknown."""
    for event in _unsorted(paths, (kind,)):
        yield {name: event.get(name) for name in ("clip_id", "at", *details)}


def outlines(paths: RunPaths, kinds: Collection[str]) -> Iterator[dict[str, Any]]:
    """Of every ledger, in their order: its first event, those of some kinds, and its last one; no others are parsed."""
    prefixes = _prefixes(kinds)
    for file in ledger_files(paths):
        with opened(paths, file) as (stream, parts):
            for part in parts:
                is_first, skipped = True, b""
                for line in lines_of(stream, (part,)):
                    skipped = line
                    if (is_first or line.startswith(prefixes)) and (event := _event(line)) is not None:
                        yield event
                        is_first, skipped = False, b""
                if (event := _event(skipped)) is not None:
                    yield event


def ledger_states(paths: RunPaths) -> dict[str, tuple[int, int]]:
    """Worker → size in bytes and modification time in ns of its ledger; they differ whenever it was touched.

    Only of workers that may be alive.
    """
    return {path.stem: (stat.st_size, stat.st_mtime_ns) for path, stat in open_ledgers(paths)}


def silent_seconds(paths: RunPaths, worker: str) -> float:
    """Seconds since a worker's ledger was last written or touched; infinity if there is none.

    Negative if the clock of the file server, or of the worker's machine, is ahead of the clock of this machine.
    """
    try:
        return time.time() - paths.ledger(worker).stat().st_mtime
    except OSError:
        return float("inf")


def _unsorted(
    paths: RunPaths,
    kinds: Collection[str],
    files: Sequence[LedgerFile] | None = None,
    clip_ids: Collection[str] | None = None,
    *,
    is_head: bool = False,
) -> Iterator[dict[str, Any]]:
    """The events of some ledgers; of few clips, most others are skipped without parsing them.

    Args:
        paths, kinds, files, clip_ids: as for `read_events`.
        is_head: whether the summary of a result is not needed, most of the text of its event.
    """
    prefixes = _prefixes(kinds) or b"{"
    few = [json.dumps(clip_id).encode() for clip_id in clip_ids or ()] if len(clip_ids or ()) <= _FEW_CLIPS else []
    for file in ledger_files(paths) if files is None else files:
        with opened(paths, file) as (stream, parts):
            for line in lines_of(stream, parts):
                if few and not any(clip_id in line for clip_id in few):
                    continue
                if line.startswith(prefixes) and (event := _event(_head(line) if is_head else line)) is not None:
                    yield event


def _head(line: bytes) -> bytes:
    """The line of an event without its summary, which comes last; in version 0.1, other details followed."""
    start = line.find(_SUMMARY)
    return line if start < 0 or not line.rstrip().endswith(b"}}") or b'"file_sha256"' in line else line[:start] + b"}"


def _prefixes(kinds: Collection[str]) -> tuple[bytes, ...]:
    """How the lines of these events start: most others are skipped without parsing them, as there may be a million."""
    return tuple(f'{{"event": "{kind}"'.encode() for kind in kinds)


def _event(line: bytes) -> dict[str, Any] | None:
    """The event of a line; None if it is not an event, for instance because a crash has damaged it."""
    try:
        event = json.loads(line)
        datetime.fromisoformat(event["at"])
        return event if isinstance(event["clip_id"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _is_missing(path: Path) -> bool:
    """Whether a file does not exist; one that cannot be looked up, because a file server does not answer, does."""
    try:
        path.stat()
    except OSError as exc:
        return isinstance(exc, (FileNotFoundError, NotADirectoryError))
    return False


def _at(event: dict[str, Any]) -> str:
    return str(event["at"])
