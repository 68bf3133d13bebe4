"""The state of a run according to its ledgers, from events or from the summaries of batches of ended ledgers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from aot.paths import RunPaths
from aot.runs.ledger_files import BATCH_LEDGERS, make_batch
from aot.runs.timing import WorkerTime, WorkerTimes


@dataclass(frozen=True)
class _Done:
    """The latest result of a clip."""

    at: float
    """When it was complete, in s since 1970."""
    num_frames: int
    is_partial: bool


class RunState:
    """What `aot.status` shows of the ledgers."""

    def __init__(self) -> None:
        self.open: dict[tuple[str, str], dict[str, Any]] = {}
        """Clip id and worker → "started" event of an attempt without an end."""
        self.first_start: float | None = None
        """In s since 1970."""
        self.times = WorkerTimes()
        self._done: dict[str, _Done] = {}
        self._drawn: dict[str, float] = {}
        """Clip id → when its latest drawing began or ended, in s since 1970."""

    def add(self, event: Mapping[str, Any]) -> None:
        """Add an event; those of one worker in their order."""
        if "worker" not in event:
            return
        self.times.add(event)
        clip_id = event["clip_id"]
        key, at = (clip_id, event["worker"]), seconds_of(event)
        if event["event"] == "started":
            self.open[key] = dict(event)
            self._start(at)
        elif event["event"] not in ("reading ahead", "read ahead"):
            self.open.pop(key, None)
            if event["event"] == "done":
                summary = event["summary"]
                self._finish(clip_id, _Done(at, summary["num_frames"], bool(summary["object_errors"])))
            # Version 0.1 records with the result what "scored" records now.
            if event["event"] in ("scored", "ended") or "file_sha256" in event:
                self._drawn[clip_id] = max(at, self._drawn.get(clip_id, 0.0))

    def absorb(self, summary: Mapping[str, Any]) -> None:
        """Add the summary of a batch."""
        for clip_id, (at, num_frames, is_partial) in summary["done"].items():
            self._finish(clip_id, _Done(at, num_frames, bool(is_partial)))
        for clip_id, at in summary["drawn"].items():
            self._drawn[clip_id] = max(at, self._drawn.get(clip_id, 0.0))
        for worker, time in summary["workers"].items():
            self.times.absorb(worker, WorkerTime(**time))
        self.open |= {(event["clip_id"], event["worker"]): event for event in summary["open"]}
        self._start(summary["first_start"])

    def as_summary(self) -> dict[str, Any]:
        """What `absorb` adds."""
        return {
            "done": {clip_id: [done.at, done.num_frames, int(done.is_partial)] for clip_id, done in self._done.items()},
            "drawn": self._drawn,
            "workers": {name: asdict(time) for name, time in self.times.all.items()},
            "open": list(self.open.values()),
            "first_start": self.first_start,
        }

    def is_partial(self, clip_id: str) -> bool:
        """Whether some objects of the clip's latest result have failed."""
        done = self._done.get(clip_id)
        return done is not None and done.is_partial

    def is_undrawn(self, clip_id: str) -> bool:
        """Whether the clip's latest result still waits for a drawer."""
        done = self._done.get(clip_id)
        return done is not None and self._drawn.get(clip_id, 0.0) < done.at

    def done_since(self, start: float) -> list[int]:
        """The numbers of frames of the results that are complete since a time, in s since 1970."""
        return [done.num_frames for done in self._done.values() if done.at >= start]

    def _finish(self, clip_id: str, done: _Done) -> None:
        known = self._done.get(clip_id)
        if known is None or known.at <= done.at:
            self._done[clip_id] = done

    def _start(self, at: float | None) -> None:
        if at is not None:
            self.first_start = at if self.first_start is None else min(at, self.first_start)


def merge_ended_ledgers(paths: RunPaths, *, at_least: int = BATCH_LEDGERS) -> bool:
    """Merge ledgers that have ended into one file, if there are many; whether it was done.

    Raises:
        WriteError: the run folder cannot be written.
    """
    return make_batch(paths, _summary, at_least=at_least)


def seconds_of(event: Mapping[str, Any]) -> float:
    """The time of an event, in s since 1970."""
    return datetime.fromisoformat(event["at"]).astimezone(timezone.utc).timestamp()


def _summary(lines: Iterable[bytes]) -> dict[str, Any]:
    state = RunState()
    for line in lines:
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["at"])
            if isinstance(event["clip_id"], str):
                state.add(event)
        except (ValueError, TypeError, KeyError, RecursionError):  # damaged by a crash
            continue
    return state.as_summary()
