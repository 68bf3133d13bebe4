"""All workers on this machine: one a GPU, or one where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated

from annotated_types import Ge, Gt

from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.shards import longest_first, pack
from aot.launching.slots import make_slots
from aot.launching.supervisor import Supervisor, WorkerLimits
from aot.runs.task import ClipTask


class LocalLauncher:
    """Runs clips in child processes of this one, which outlives whatever happens to them."""

    def __init__(
        self,
        workers: Annotated[int, Ge(1)] | None = None,
        memory_gb: Annotated[float, Gt(0)] | None = None,
        stall_seconds: Annotated[float, Gt(0)] = 600.0,
    ) -> None:
        """Keep the options; they are explained in conf/launcher/local.yaml."""
        self._slots = make_slots(workers)
        self._care = WorkerLimits(stall_seconds, memory_gb)

    @property
    def divides_work(self) -> bool:
        return len(self._slots) > 1

    def launch(self, plan: Plan, todo: Sequence[ClipTask]) -> Wait:
        return partial(self._run, plan, self._ordered(plan, todo))

    def preview(self, plan: Plan, todo: Sequence[ClipTask]) -> Preview:
        costs = {each.clip.clip_id: plan.costs[each.clip.clip_id] for each in todo}
        room = None if self._care.memory_gb is None else int(self._care.memory_gb * 1e9)
        return Preview(pack(costs, len(self._slots)), len(self._slots), room)

    def _ordered(self, plan: Plan, todo: Sequence[ClipTask]) -> Sequence[ClipTask]:
        """One worker takes the clips as they are named; of several none shall begin with the longest at the end."""
        if not self.divides_work:
            return todo
        by_id = {each.clip.clip_id: each for each in todo}
        return [by_id[clip_id] for clip_id in longest_first({clip_id: plan.costs[clip_id] for clip_id in by_id})]

    def _run(self, plan: Plan, todo: Sequence[ClipTask]) -> None:
        with Display(len(todo)) as display:
            Supervisor(plan.context, self._slots, self._care, display).run(todo)
