"""A run of three clips under a supervisor of fake processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aot.launching.slots import Slot
from aot.launching.supervised_child import WorkerLimits
from aot.launching.supervisor import Supervisor
from tests.launching.fake_processes import FakeMachine, FakeProcess
from tests.launching.in_memory import FakeDisplay, MemoryRun

CLIPS = {"a": 10, "b": 20, "c": 30}


class Supervised(MemoryRun):
    """A run of three clips under a supervisor of fake processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, CLIPS)
        self.machine = FakeMachine()
        self.display = FakeDisplay()

    def supervisor(
        self,
        *,
        slots: int = 1,
        drawers: int = 1,
        stall_seconds: float = 600.0,
        memory_gb: float | None = None,
        **changes: Any,
    ) -> Supervisor:
        return Supervisor(
            self.context(**changes),
            [Slot(number, gpu=str(number), num_threads=None) for number in range(slots)]
            + [Slot(number, gpu="", num_threads=1, is_drawer=True) for number in range(drawers)],
            WorkerLimits(stall_seconds, memory_gb, scheduler_task="7_1"),
            self.display,  # type: ignore[arg-type]
            start_process=self.machine.start_process,  # type: ignore[arg-type]
            wait_for_messages=self.machine.wait_for_messages,  # type: ignore[arg-type]
            clock=self.machine.clock,
        )

    def run(self, **options: Any) -> None:
        supervisor = self.supervisor(**options)
        self.tasks_given = self.tasks()
        supervisor.run(self.tasks_given)

    @property
    def processes(self) -> list[FakeProcess]:
        """The workers, in the order in which they were started."""
        return self.machine.processes

    @property
    def drawers(self) -> list[FakeProcess]:
        return self.machine.drawers

    def started(self, work: str = "all") -> list[str]:
        return [event["clip_id"] for event in self.events("started") if event["work"] == work]

    def deaths(self) -> list[tuple[str, str]]:
        return [(event["clip_id"], event["class"]) for event in self.events("died")]
