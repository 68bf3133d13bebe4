"""The ladder: what is tried next for a clip whose attempt ran out of memory, was lost, or failed.

    rung 1     as configured
    rung 2     the same frames with the lean memory plan
    rung 3 …   lean, and frame_interval doubled each time, up to a maximum

Out of memory climbs to the next rung. An attempt that was lost with its process or its whole task tells nothing about
the clip and repeats its rung, so many times at most. Everything else is the clip's own failure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OUT_OF_MEMORY = "oom"
LOST = "lost"
"""Killed from outside, alone or with its task: preemption, a time limit, a node."""
CRASHED = "crash"
"""The process died of itself: a segmentation fault, an abort, a broken CUDA context."""
STALLED = "stall"
"""Nothing moved any more, and the process was ended."""

REPEATS: Mapping[str, int] = {LOST: 3, CRASHED: 1, STALLED: 1, "write": 1}
"""How often a rung is repeated after an attempt that ended so; what is not listed is not repeated."""


@dataclass(frozen=True)
class Rung:
    """One way of running a clip."""

    number: int
    """From 1."""
    frame_interval: int
    lean: bool
    """The tracker's lean memory plan."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a clip and how it ended."""

    rung: Rung
    kind: str | None = None
    """The class of its error; None for the attempt that gave the result."""
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As files, ledgers and failures record it."""
        rung = asdict(self.rung)
        return {"rung": rung.pop("number"), **rung, "class": self.kind, "error": self.error}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Attempt:
        rung = Rung(int(record["rung"]), int(record["frame_interval"]), bool(record["lean"]))
        return cls(rung, record.get("class"), record.get("error"))


def ladder(frame_interval: int, max_frame_interval: int) -> tuple[Rung, ...]:
    """All rungs, the first as configured.

        ladder(3, 16)    3    3 lean    6 lean    12 lean

    Args:
        frame_interval: the one asked for.
        max_frame_interval: no rung above the second goes beyond it.
    """
    rungs = [Rung(1, frame_interval, lean=False), Rung(2, frame_interval, lean=True)]
    while (wider := 2 * rungs[-1].frame_interval) <= max_frame_interval:
        rungs.append(Rung(len(rungs) + 1, wider, lean=True))
    return tuple(rungs)


def next_rung(rungs: Sequence[Rung], attempts: Sequence[Attempt]) -> Rung | None:
    """The rung to try after these attempts; None when the clip has failed.

    Args:
        rungs: the ladder, ascending.
        attempts: those of this clip that have ended badly, oldest first.
    """
    if not attempts:
        return rungs[0]
    last = attempts[-1]
    if last.kind == OUT_OF_MEMORY:
        return next((rung for rung in rungs if rung.number > last.rung.number), None)
    ended_so = sum(attempt.kind == last.kind and attempt.rung == last.rung for attempt in attempts)
    return last.rung if ended_so <= REPEATS.get(last.kind or "", 0) else None
