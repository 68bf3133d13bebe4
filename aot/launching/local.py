"""The launcher for this machine: one worker process per GPU, or one if there is no GPU, and drawers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from typing import Annotated

from annotated_types import Ge, Gt

from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.shards import longest_first, pack
from aot.launching.slots import Slot, make_slots
from aot.launching.supervised_child import WorkerLimits
from aot.launching.supervisor import Supervisor
from aot.runs.parts import PartSweeper
from aot.runs.task import ClipTask


class LocalLauncher:
    """Processes clips in child processes, so that a crash, a kill or a lack of memory ends only the child.

    Args:
        workers: number of worker processes; None: one per GPU, or one if there is no GPU.
        memory_gb: main memory that one worker may use, in units of 10⁹ bytes; None: no limit.
        stall_seconds: a worker that makes no progress and uses no CPU for this long, in s, is replaced.
        drawers: processes per worker that draw and score its finished clips; None: from the number of cores.
        strict: whether clips that were computed with a larger frame_interval than requested make the exit code 1.
    """

    def __init__(
        self,
        workers: Annotated[int, Ge(1)] | None = None,
        memory_gb: Annotated[float, Gt(0)] | None = None,
        stall_seconds: Annotated[float, Gt(0)] = 600.0,
        drawers: Annotated[int, Ge(1)] | None = None,
        strict: bool = False,
    ) -> None:
        self.is_strict = strict
        self._workers = workers
        self._drawers = drawers
        self._limits = WorkerLimits(stall_seconds, memory_gb)

    @cached_property
    def _slots(self) -> list[Slot]:
        return make_slots(self._workers, self._drawers)

    @property
    def _num_workers(self) -> int:
        return sum(not slot.is_drawer for slot in self._slots)

    @property
    def divides_work(self) -> bool:
        return self._num_workers > 1

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Wait:
        return partial(self._run, plan, self._ordered(plan, tasks))

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        costs = {task.clip.clip_id: plan.costs[task.clip.clip_id] for task in tasks}
        available_bytes = None if self._limits.memory_gb is None else int(self._limits.memory_gb * 1e9)
        workers = self._num_workers
        drawers = (len(self._slots) - workers) // workers
        return Preview(
            pack(costs, workers), workers, available_bytes, drawers_per_shard=drawers,
            processes_per_gpu=max(slot.processes_per_gpu for slot in self._slots),
        )  # fmt: skip

    def _ordered(self, plan: Plan, tasks: Sequence[ClipTask]) -> Sequence[ClipTask]:
        """The tasks as given for one worker; for several, the longest first, so that none is left to the end."""
        if not self.divides_work:
            return tasks
        by_id = {task.clip.clip_id: task for task in tasks}
        return [by_id[clip_id] for clip_id in longest_first({clip_id: plan.costs[clip_id] for clip_id in by_id})]

    def _run(self, plan: Plan, tasks: Sequence[ClipTask]) -> None:
        parts = PartSweeper(plan.paths)
        with Display(len(tasks)) as display:
            Supervisor(plan.context, self._slots, self._limits, display).run(tasks)
        parts.sweep_other_machines()
