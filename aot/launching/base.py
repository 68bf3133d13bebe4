"""The launcher: how the clips of a plan reach workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from aot.launching.plan import Plan, Work
from aot.launching.worker import Outcome
from aot.types import Clip


class Launcher(Protocol):
    """Gets a plan's work done, wherever."""

    def launch(self, plan: Plan, todo: Sequence[tuple[Clip, Work]]) -> list[Outcome]:
        """Run every clip of `todo`; one that fails is an outcome like another.

        Raises:
            KeyboardInterrupt: the user stopped it; what is finished stays.
        """
        ...
