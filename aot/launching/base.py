"""The launcher role: how the clips of a plan reach the workers that process them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from aot.launching.plan import Plan
from aot.runs.task import ClipTask

Wait = Callable[[], None]
"""Returns when every launched clip is done or has failed; the outcomes are in the run folder."""


@dataclass(frozen=True)
class Preview:
    """What a launcher would do."""

    shards: list[list[str]]
    """Clip ids per task or worker; for workers that share a queue, the division if all cost estimates were exact."""
    max_workers: int
    """How many workers run at the same time, at most."""
    available_bytes: int | None
    """Memory of one worker; None: the launcher sets no limit."""
    script: str | None = None
    """The batch script for a scheduler; None: the clips run on this machine."""
    workers_per_shard: int = 1
    """How many workers process one shard together."""
    drawers_per_shard: int = 0
    """How many processes draw the finished clips of one shard; 0: its workers do."""
    processes_per_gpu: int = 1
    """How many workers share a GPU of this machine; each may use the same part of its memory."""


class Launcher(Protocol):
    """Gets the clips of a plan processed, on this machine or elsewhere."""

    divides_work: bool
    """Whether clips are divided among several workers, so that the cost of each clip matters."""

    is_strict: bool
    """Whether clips that were computed with a larger frame_interval than requested make the exit code 1."""

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Wait | None:
        """Start processing; a launcher that runs clips on this machine does so in `Wait`.

        A clip that fails is recorded and does not stop the others.

        Args:
            plan: of the run.
            tasks: the clips that need work, at least one.
        Returns:
            None if the clips are handed over and nothing waits for them.
        Raises:
            ConfigError: a scheduler refused the clips; nothing was started.
            WriteError: the run folder cannot be written; also raised by Wait.
            KeyboardInterrupt: (Wait) the user stopped it; finished clips stay.
        """
        ...

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        """Describe what `launch` would do."""
        ...
