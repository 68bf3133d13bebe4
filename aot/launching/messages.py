"""What a supervisor and its child process say to each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aot.launching.plan import RunContext


@dataclass(frozen=True)
class Start:
    """To the child, once: what holds for all clips. Clips (`ClipTask`) follow one by one, and None at the end."""

    run: RunContext
    worker: str
    task: str | None
    memory_gb: float | None


@dataclass(frozen=True)
class Ready:
    """From the child: it can take a clip, the first one or the next."""


@dataclass(frozen=True)
class Beat:
    """From the child, every second while any of its threads can run."""

    cpu_seconds: float
    """Used by the process so far."""


@dataclass(frozen=True)
class Progress:
    """From the child: how far it is."""

    stage: str
    share: float


@dataclass(frozen=True)
class Noted:
    """From the child: an event that it has written to its ledger."""

    event: dict[str, Any]
