"""The ladder: the settings of the next attempt at a clip that ran out of memory, was lost, or failed.

    rung 1     as configured
    rung 2     the same frames with the lean memory plan
    rung 3 …   lean, with frame_interval doubled on each rung, up to a maximum

After running out of memory, the next attempt is one rung higher. An attempt that was lost with its process or its task
says little about the clip, so its rung is repeated, a limited number of times. All other errors fail the clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

OUT_OF_MEMORY = "oom"
LOST = "lost"
"""The process was killed from outside, possibly with its task: preemption, a time limit, a lost node."""
CRASHED = "crash"
"""The process crashed: a segmentation fault, an abort, a broken CUDA context."""
STALLED = "stall"
"""The process made no progress any more and was killed."""

REPEATS: Mapping[str, int] = {LOST: 3, CRASHED: 1, STALLED: 1, "write": 1}
"""How often a rung is repeated after an attempt that ended this way; other error classes are not repeated."""


@dataclass(frozen=True)
class Rung:
    """Settings of an attempt."""

    number: int
    """Position in the ladder, from 1."""
    frame_interval: int
    lean: bool
    """Whether the tracker uses its lean memory plan."""


@dataclass(frozen=True)
class Attempt:
    """One attempt at a clip and its outcome."""

    rung: Rung
    kind: str | None = None
    """The class of its error; None for the attempt that gave the result."""
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The attempt as result files, ledgers and failures record it."""
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
        frame_interval: the requested interval.
        max_frame_interval: maximum of the intervals above the second rung.
    """
    rungs = [Rung(1, frame_interval, lean=False), Rung(2, frame_interval, lean=True)]
    while (wider := 2 * rungs[-1].frame_interval) <= max_frame_interval:
        rungs.append(Rung(len(rungs) + 1, wider, lean=True))
    return tuple(rungs)


def next_rung(rungs: Sequence[Rung], attempts: Sequence[Attempt]) -> Rung | None:
    """The rung to try after these attempts; None when the clip has failed.

    Args:
        rungs: the ladder, ascending.
        attempts: the failed attempts at this clip, oldest first.
    """
    if not attempts:
        return rungs[0]
    last = attempts[-1]
    if last.kind == OUT_OF_MEMORY:
        return next((rung for rung in rungs if rung.number > last.rung.number), None)
    num_same = sum(attempt.kind == last.kind and attempt.rung == last.rung for attempt in attempts)
    return last.rung if num_same <= REPEATS.get(last.kind or "", 0) else None
