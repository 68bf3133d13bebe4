"""The messages between a supervisor and its child process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aot.launching.plan import RunContext
from aot.runs.task import ClipTask


@dataclass(frozen=True)
class Start:
    """To the child, once: what is the same for all clips. `Assignment`s follow one by one, and None at the end."""

    run: RunContext
    worker: str
    scheduler_task: str | None
    memory_gb: float | None


@dataclass(frozen=True)
class Assignment:
    """To the child: a clip to process."""

    task: ClipTask
    following: ClipTask | None
    """The clip to read ahead meanwhile; another one may be assigned instead."""


@dataclass(frozen=True)
class Ready:
    """From the child: it can take a clip, the first one or the next."""


@dataclass(frozen=True)
class Heartbeat:
    """From the child, every second while any of its threads can run."""

    cpu_seconds: float
    """CPU time that the process has used so far."""


@dataclass(frozen=True)
class Progress:
    """From the child: the stage of the current clip, and the fraction of it that is done (0..1)."""

    stage: str
    fraction: float


@dataclass(frozen=True)
class LedgerEvent:
    """From the child: an event that it has written to its ledger."""

    event: dict[str, Any]
