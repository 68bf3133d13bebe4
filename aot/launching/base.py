"""The launcher: how the clips of a plan reach workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aot.launching.plan import Plan
from aot.runs.task import ClipTask

Wait = Callable[[], None]
"""Ends when nothing is left to wait for; what came of the clips lies on the disk."""


@dataclass(frozen=True)
class Preview:
    """What a launcher would do."""

    shards: list[list[str]]
    """Clip ids of every task or worker; of workers that take from one queue, as it would go if all costs were right."""
    workers_at_once: int
    """How many clips are run at the same time."""
    available_bytes: int | None
    """Memory of one worker; None: not limited by the launcher."""
    script: str | None = None
    """What a scheduler would be given, for machines that are not this one."""
    workers_per_shard: int = 1
    """How many of them work off one shard."""


class Launcher(Protocol):
    """Gets a plan's work done, wherever."""

    divides_work: bool
    """Whether clips go to several workers, so that it matters how long each takes."""

    def launch(self, plan: Plan, todo: Sequence[ClipTask]) -> Wait | None:
        """Hand the clips over; a launcher that runs them in this process or beside it does so in `Wait`.

        A clip that fails is recorded and stops nothing.

        Returns:
            None where they are handed over and nobody is to wait.
        Raises:
            ConfigError: a scheduler refused; nothing was started.
            WriteError: the run folder cannot be written. So may Wait.
            KeyboardInterrupt: (Wait) the user stopped it; what is finished stays.
        """
        ...

    def preview(self, plan: Plan, todo: Sequence[ClipTask]) -> Preview:
        """Say what `launch` would do."""
        ...
