"""The launcher for SLURM: submitting arrays of tasks, waiting for them, and querying the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aot.launching.slurm.launcher import SlurmLauncher

__all__ = ["SlurmLauncher"]


def __getattr__(name: str) -> Any:
    """Import the launcher on first use: commands that only query SLURM do not need submitit."""
    if name == "SlurmLauncher":
        from aot.launching.slurm.launcher import SlurmLauncher

        return SlurmLauncher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
