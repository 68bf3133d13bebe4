"""How long the stages of clips took, and how much of their time the workers computed; read from the ledgers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aot.paths import RunPaths
from aot.runs.ledger import all_events, outlines
from aot.system.text import counted

COMPUTING = ("detect", "segment", "query_points", "track", "reseed", "return_check")
"""The stages in which the models compute."""
DRAWING = ("score", "overlay", "pictures", "report")
"""The stages after a result is complete."""
STAGES = ("hash", "open", "prompts", "predict", "wait_for_frames", *COMPUTING, "write", *DRAWING)
"""All stages in which the time of a clip is recorded, in their order."""

# More workers than this would fill the line.
_MAX_LISTED = 8


@dataclass
class WorkerTime:
    """The time of one worker, from its first event to its last one."""

    started: float
    """Time of its first event, s since 1970."""
    ended: float
    """Time of its last event."""
    computing_seconds: float = 0.0
    """In which its models computed complete results."""
    num_clips: int = 0
    """Number of these results."""

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def busy_fraction(self) -> float:
        """Fraction of its time in which its models computed, 0..1."""
        return min(1.0, self.computing_seconds / self.seconds) if self.seconds > 0 else 0.0


class WorkerTimes:
    """The times of the workers of a run, from the events of their ledgers.

    A worker's time includes all that it did besides: loading, reading, writing, waiting, and failed attempts. Drawers
    compute no results, and have no times.
    """

    def __init__(self) -> None:
        self._all: dict[str, WorkerTime] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Add an event; those of one worker in their order. Only its first, its last and its "done" events count."""
        at = datetime.fromisoformat(event["at"]).timestamp()
        time = self._all.setdefault(event["worker"], WorkerTime(at, at))
        if event["event"] != "interrupted":  # may be recorded by another process, long after the worker has ended
            time.ended = max(time.ended, at)
        if event["event"] == "done":
            time.num_clips += 1
            time.computing_seconds += computing_seconds(event["summary"]["seconds"])

    def absorb(self, worker: str, time: WorkerTime) -> None:
        """Add the time of a worker, or of a part of its events."""
        known = self._all.setdefault(worker, WorkerTime(time.started, time.ended))
        known.started = min(known.started, time.started)
        known.ended = max(known.ended, time.ended)
        known.num_clips += time.num_clips
        known.computing_seconds += time.computing_seconds

    @property
    def all(self) -> Mapping[str, WorkerTime]:
        """Name → time of every worker."""
        return self._all

    @property
    def by_worker(self) -> dict[str, WorkerTime]:
        """Name → time of every worker that has completed a result."""
        return {name: time for name, time in sorted(self._all.items()) if time.num_clips}

    @property
    def busy_fraction(self) -> float | None:
        """Fraction of the time of all workers in which their models computed, 0..1; None if no result is complete."""
        times = self.by_worker.values()
        seconds = sum(time.seconds for time in times)
        return min(1.0, sum(time.computing_seconds for time in times) / seconds) if seconds > 0 else None


def worker_times(paths: RunPaths) -> WorkerTimes:
    """The times of all workers of a run."""
    times = WorkerTimes()
    for event in outlines(paths, ("done",)):
        times.add(event)
    return times


def describe_busy(times: WorkerTimes) -> str:
    """A line for the terminal; the times are not empty."""
    workers = times.by_worker.values()
    single = (
        f" ({', '.join(f'{time.busy_fraction:.0%}' for time in workers)})" if 1 < len(workers) <= _MAX_LISTED else ""
    )
    return f"the models computed in {times.busy_fraction:.0%} of the time of {counted(len(workers), 'worker')}{single}"


def drawing_seconds(paths: RunPaths, done: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Clip id → stage → seconds of its latest drawings, see `latest_seconds`.

    Args:
        paths: of the run.
        done: clip id → time of its "done" event.
    """
    drawings = defaultdict(list)
    for event in all_events(paths, "ended", "seconds"):
        if event["seconds"]:
            drawings[event["clip_id"]].append((str(event["at"]), event["seconds"]))
    found = {clip_id: latest_seconds(own, done.get(clip_id, "")) for clip_id, own in drawings.items()}
    return {clip_id: seconds for clip_id, seconds in found.items() if seconds}


def latest_seconds(drawings: Iterable[tuple[str, Mapping[str, float]]], done_at: str) -> dict[str, float]:
    """Stage → seconds of the latest drawings of a result, which may be from different commands.

    Args:
        drawings: the time of the end of each drawing, and the seconds of its stages.
        done_at: time at which the result was complete; earlier drawings are those of an earlier result.
    """
    latest: dict[str, float] = {}
    for at, seconds in sorted(drawings, key=lambda drawing: drawing[0]):
        latest |= seconds if at >= done_at else {}
    return latest


def in_order(seconds: Mapping[str, float]) -> dict[str, float]:
    """The times of stages in the order in which the stages run, then those of other stages.

    Args:
        seconds: stage → its time in s; recorded when a stage ends, so that a part of another one comes before it.
    """
    known = {stage: seconds[stage] for stage in STAGES if stage in seconds}
    return known | dict(seconds)


def computing_seconds(seconds: Mapping[str, float]) -> float:
    """The time in which the models computed.

    Args:
        seconds: stage → its time in s.
    """
    return _sum_of(COMPUTING, seconds)


def result_seconds(seconds: Mapping[str, float]) -> float:
    """The time that a worker took for a result, without its drawings.

    Args:
        seconds: stage → its time in s.
    """
    return _sum_of((stage for stage in seconds if stage not in DRAWING), seconds)


def draw_seconds(seconds: Mapping[str, float]) -> float:
    """The time that a drawer took for a clip.

    Args:
        seconds: stage → its time in s.
    """
    return _sum_of(DRAWING, seconds)


def _sum_of(stages: Iterable[str], seconds: Mapping[str, float]) -> float:
    return float(sum(seconds.get(stage, 0.0) for stage in stages))
