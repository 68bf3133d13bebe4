"""Worker processes and a clock in memory: a script says what every process does with its clips, and nothing waits."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aot.launching.messages import Heartbeat, LedgerEvent, Progress, Ready, Start
from aot.launching.slots import Slot
from aot.retry import Attempt, ladder, next_rung
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask, Work
from aot.system.processes import host
from tests.launching.in_memory import record_drawn, record_result

# No scripted run waits this often: a supervisor that never ends must not hang the tests.
_MAX_WAITS = 5000
_CLOSED = object()


class FakeProcess:
    """Stands in for `aot.launching.process.WorkerProcess`; the methods below `end` are for scripts.

    Args:
        machine: on which it runs.
        pid: of the process.
        slot, log: as for `start_process`.
    """

    def __init__(self, machine: FakeMachine, pid: int, slot: Slot, log: Path) -> None:
        self.pid = pid
        self.slot = slot
        self.exit_code: int | None = None
        self.clip_ids: list[str] = []
        self.following: ClipTask | None = None
        self.signals: list[signal.Signals] = []
        self.end_timeouts: list[float] = []
        self.was_asked_to_end = False
        self.ignores_interrupts = False
        self.summary: dict[str, Any] = {}
        self.inbox: deque[Any] = deque()
        self.on_wait: Callable[[FakeProcess], None] = lambda process: None
        self.on_end: Callable[[FakeProcess], None] = lambda process: process.exit(0)
        self.machine = machine
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()

    def send(self, message: Any) -> None:
        if self.exit_code is not None:
            return
        if isinstance(message, Start):
            self.start = message
            self.machine.next_start(self)(self)
        elif message is None:
            self.was_asked_to_end = True
            self.on_end(self)
        else:
            self.clip_ids.append(message.task.clip.clip_id)
            self.following = message.following
            self.machine.next_action(self, message.task)(self, message.task)

    def receive(self) -> Any:
        if self.inbox[0] is _CLOSED:
            raise EOFError
        return self.inbox.popleft()

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)
        if self.exit_code is None and not (number is signal.SIGINT and self.ignores_interrupts):
            self.exit_code = 130 if number is signal.SIGINT else -number

    def end(self, timeout_seconds: float) -> None:
        self.end_timeouts.append(timeout_seconds)
        if self.exit_code is None:
            self.machine.now += timeout_seconds
            self.signal(signal.SIGKILL)

    def begin(self, task: ClipTask, *kinds: str) -> None:
        """Start a clip; `kinds` are the error classes of attempts that fail one after another."""
        self.ledger = Ledger(
            self.start.run.paths,
            self.start.worker,
            scheduler_task=self.start.scheduler_task,
            on_event=lambda event: self.inbox.append(LedgerEvent(event)),
        )
        config = self.start.run.config
        rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
        attempts = list(task.attempts)
        for kind in (*kinds, None):
            rung = next_rung(rungs, attempts)
            if rung is None:
                return
            settings = {"rung": rung.number, "frame_interval": rung.frame_interval, "lean": rung.lean}
            self._append("started", task, content=task.fingerprint.digest, work=task.work.value, **settings)
            if kind is not None:
                self._append("attempt failed", task, **{"class": kind, "error": f"{kind} scripted by the test"})
                attempts.append(Attempt(rung, kind))

    def report(self, stage: str, fraction: float = 0.5) -> None:
        self.inbox.append(Progress(stage, fraction))

    def heartbeat(self, cpu_seconds: float) -> None:
        self.inbox.append(Heartbeat(cpu_seconds))

    def finish(self, task: ClipTask) -> None:
        """Do what the process is to do for a clip that it has begun: compute its result, or draw it."""
        if task.work is Work.ALL:
            record_result(self.start.run.paths, task, self.ledger, **self.summary)
        else:
            record_drawn(task, self.ledger)

    def ready(self) -> None:
        self.inbox.append(Ready())

    def write_log(self, text: str) -> None:
        with self._log.open("a") as log:
            log.write(text)

    def write_part(self) -> Path:
        """Leave a part file in the run folder, as a process that is killed while it writes a result."""
        part = self.start.run.paths.results / f".{host()}-{self.pid}-abc.h5.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        return part

    def exit(self, code: int) -> None:
        self.exit_code = code
        self.inbox.append(_CLOSED)

    def _append(self, event: str, task: ClipTask, **details: Any) -> None:
        self.ledger.append(event, clip_id=task.clip.clip_id, pid=self.pid, **details)


Action = Callable[[FakeProcess, ClipTask], None]
"""What a process does with a clip."""


class FakeMachine:
    """Starts fake processes and has a clock that advances only while nothing happens.

    Attributes:
        now: time in s.
        actions: clip id → how it is computed, the first time, the second time, …; afterwards, it is finished.
        drawings: clip id → how it is drawn, likewise.
        starts: what the first, the second, … worker does when it starts; the others get ready.
        drawer_starts: what the first, the second, … drawer does when it starts, likewise.
        interrupt: raised when the supervisor waits and no message has arrived.
        processes, drawers: the workers and the drawers that were started.
        num_running: how many workers were running when the supervisor waited.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self.actions: dict[str, list[Action]] = {}
        self.drawings: dict[str, list[Action]] = {}
        self.starts: list[Callable[[FakeProcess], None]] = []
        self.drawer_starts: list[Callable[[FakeProcess], None]] = []
        self.interrupt: BaseException | None = None
        self.processes: list[FakeProcess] = []
        self.drawers: list[FakeProcess] = []
        self.num_running: list[int] = []
        self._num_waits = 0
        self._later: list[tuple[float, Callable[[], None]]] = []

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something when this time has passed."""
        self._later.append((self.now + seconds, act))

    def clock(self) -> float:
        return self.now

    def start_process(self, slot: Slot, log: Path) -> FakeProcess:
        process = FakeProcess(self, 4_000_000 + len(self.processes) + len(self.drawers), slot, log)
        (self.drawers if slot.is_drawer else self.processes).append(process)
        return process

    def wait_for_messages(self, processes: Sequence[FakeProcess], timeout_seconds: float) -> list[FakeProcess]:
        self._num_waits += 1
        assert self._num_waits < _MAX_WAITS, "the supervisor does not end"
        self.num_running.append(sum(not process.slot.is_drawer for process in processes))
        ready = [process for process in processes if process.inbox]
        if not ready:
            if self.interrupt is not None:
                raise self.interrupt
            self.now += timeout_seconds
            due = [each for each in self._later if each[0] <= self.now]
            self._later = [each for each in self._later if each[0] > self.now]
            for _, act in due:
                act()
            for process in processes:
                process.on_wait(process)
        return ready

    def next_start(self, process: FakeProcess) -> Callable[[FakeProcess], None]:
        starts = self.drawer_starts if process.slot.is_drawer else self.starts
        return starts.pop(0) if starts else FakeProcess.ready

    def next_action(self, process: FakeProcess, task: ClipTask) -> Action:
        assert process.slot.is_drawer == (task.work is Work.OVERLAY), "drawers only draw, and workers only compute"
        actions = (self.drawings if process.slot.is_drawer else self.actions).get(task.clip.clip_id)
        return actions.pop(0) if actions else finish


def finish(process: FakeProcess, task: ClipTask) -> None:
    process.begin(task)
    process.finish(task)
    process.ready()


def fail(*kinds: str) -> Action:
    """Attempts that the worker itself reports as failed, until the clip is done."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task, *kinds)
        process.finish(task)
        process.ready()

    return act


def die(code: int, log: str = "") -> Action:
    """The process ends in the middle of the clip, when the supervisor has received its last message."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = end

    def end(process: FakeProcess) -> None:
        process.on_wait = lambda process: None
        process.write_log(log)
        process.exit(code)

    return act


def hang(process: FakeProcess, task: ClipTask) -> None:
    """The clip is started, and nothing happens any more."""
    process.begin(task)
