"""A child process as its supervisor sees it: its clip, its last activity, and why it ended."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from aot.launching.messages import Assignment, Heartbeat, Progress, Start
from aot.launching.plan import RunContext
from aot.launching.process import WorkerProcess
from aot.launching.slots import Slot
from aot.retry import CRASHED, LOST, OUT_OF_MEMORY, Attempt
from aot.runs.ledger import TOUCH_SECONDS, Ledger
from aot.runs.task import ClipTask
from aot.system.memory import num_oom_kills
from aot.system.processes import host

# A child that has used less than this fraction of one core since its last activity is not working. Sending heartbeats
# takes 0.2 ms per second.
_MIN_CPU_FRACTION = 0.02
_START_SECONDS = 300.0
# The last words in the log of a C++ or Python process that ends because an allocation failed.
_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory")
_LOG_TAIL_BYTES = 4096
# A process has some ten threads, whose stacks have up to a hundred lines each.
_STACKS_BYTES = 2**17
_READ_AHEAD_FILE = b"read_ahead.py"

StartProcess = Callable[[Slot, Path], WorkerProcess]
Clock = Callable[[], float]


class Culprit(Enum):
    """Which clip a process has died of."""

    COMPUTING = "computing"
    """The one that it computed."""
    READING = "reading"
    """The one that it read ahead."""
    UNKNOWN = "unknown"
    """One of both: they are repeated without reading ahead, so that the process dies again of only one."""


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of a supervisor's children."""

    stall_seconds: float
    """A child without activity for this long, in s, is replaced."""
    memory_gb: float | None
    """Private memory that a child may allocate, in units of 10⁹ bytes; None: no limit."""
    scheduler_task: str | None = None
    """The scheduler's id of the task that runs the supervisor; None: no scheduler."""


class SupervisedChild:
    """One child process and its state.

    Args:
        run: the context that all clips share.
        slot: the resources of the process.
        limits: of the process.
        clock: time in s, without the periods in which this process was stopped.
    """

    process: WorkerProcess

    def __init__(self, run: RunContext, slot: Slot, limits: WorkerLimits, clock: Clock) -> None:
        self.slot = slot
        # Successive children of a slot append to the same ledger: a worker is a slot, not a process.
        self.name = f"{host()}-{os.getpid()}-{slot.name}"
        if limits.scheduler_task is not None:  # later starts of the task find its ledgers by their names
            self.name = f"{limits.scheduler_task}.{self.name}"
        self.ledger = Ledger(run.paths, self.name, scheduler_task=limits.scheduler_task)
        self.task: ClipTask | None = None
        self.following: ClipTask | None = None
        """The clip that it was to read ahead."""
        self.reading: str | None = None
        """Id of the clip that it is reading ahead; None: none, or its own one by now."""
        self.stage: str | None = None
        self.is_ready = False
        """Whether it has sent a message."""
        self.is_idle = False
        """Whether it waits for a clip."""
        self.has_started = self.has_open_attempt = False
        self._start_event: dict[str, Any] = {}
        self._limits = limits
        self._run = run
        self._clock = clock
        self._log = run.paths.log(self.name)
        self._num_oom_kills = num_oom_kills()
        self._cpu_seconds = 0.0
        self._last_activity = self._last_touch = clock()

    def start(self, start_process: StartProcess) -> None:
        """Start the process and send it the run.

        Raises:
            RunDeleted: the run folder was deleted.
        """
        self.ledger.require_run()
        self._log_start = self._log_bytes()
        self.process = start_process(self.slot, self._log)
        self.process.send(Start(self._run, self.name, self._limits.scheduler_task, self._limits.memory_gb))

    def send_task(self, task: ClipTask | None, following: ClipTask | None = None) -> None:
        """Send the next clip.

        Args:
            task: None: there are no more, and the process ends.
            following: the clip to read ahead meanwhile.
        """
        self.task = task
        self.following = following
        if task is not None and self.reading == task.clip.clip_id:
            self.reading = None
        self.is_idle = False
        if task is not None:
            self.ledger.follow(task.after)
        self._last_activity = self._clock()  # it has had nothing to do until now
        self.stage = None
        self.has_started = self.has_open_attempt = False
        self.process.send(None if task is None else Assignment(task, following))

    def record_activity(self, message: Any) -> None:
        """Record that a message has arrived; a heartbeat counts as activity only if the process uses the CPU."""
        self.is_ready = True
        if isinstance(message, Heartbeat):
            used = message.cpu_seconds - self._cpu_seconds
            if used < _MIN_CPU_FRACTION * (self._clock() - self._last_activity):
                return
            self._cpu_seconds = message.cpu_seconds
        elif isinstance(message, Progress):
            self.stage = message.stage
        self._last_activity = self._clock()

    @property
    def max_idle_seconds(self) -> float:
        """How long it may be idle; a new process may need longer, to import packages from a file server."""
        return self._limits.stall_seconds if self.is_ready else max(self._limits.stall_seconds, _START_SECONDS)

    def idle_seconds(self) -> float:
        """Time since its last activity in s; 0 while it waits for a clip."""
        return 0.0 if self.is_ready and self.task is None else self._clock() - self._last_activity

    def record_event(self, event: dict[str, Any]) -> None:
        """Update the state after an event that the process has written to its ledger."""
        self.ledger.follow(event["at"])
        if event["event"] in ("reading ahead", "read ahead"):
            self._record_reading(event)
        if self.task is None:
            return
        if event["event"] == "started":
            self._start_event = event
            self.has_started = self.has_open_attempt = True
            self._num_oom_kills, self._log_start = num_oom_kills(), self._log_bytes()
        elif event["event"] == "attempt failed":
            attempt = Attempt.from_json(self._start_event | event)
            self.task = replace(self.task, attempts=(*self.task.attempts, attempt))
            self.has_open_attempt = False
        elif event["event"] == "scored":
            self.task = replace(self.task, is_scored=True)
        elif event["event"] in ("taken up", "renamed"):
            is_partial = event["is_partial"]
            self.task = replace(self.task, is_recorded=True, is_renamed=False, is_scored=False, is_partial=is_partial)
        elif event["event"] in ("done", "ended"):
            self.task = None

    def _record_reading(self, event: dict[str, Any]) -> None:
        clip_id = event["clip_id"]
        if event["event"] == "reading ahead":
            self.reading = clip_id
        elif self.reading == clip_id:
            self.reading = None

    def culprit(self, *, is_computing: bool, is_killed_by_us: bool) -> Culprit:
        """Which clip the dead process has died of.

        Args:
            is_computing: whether an attempt at its clip was running.
            is_killed_by_us: whether it was killed because it has stalled.
        """
        if self.reading is None or (self.task is not None and not is_computing):
            return Culprit.COMPUTING
        if self.task is None:
            return Culprit.READING
        return Culprit.UNKNOWN if is_killed_by_us else self._culprit_in_log()

    def _culprit_in_log(self) -> Culprit:
        """Which clip the thread that brought the process down was reading or computing.

        The handler of fatal signals writes the stacks of all threads to the log, and which of them was running.
        """
        _, _, report = self._log_tail(_STACKS_BYTES).rpartition(b"Fatal Python error: ")
        _, _, stack = report.partition(b"\nCurrent thread ")
        frames = [line for line in stack.split(b"\n\n")[0].splitlines() if line.startswith(b"  File ")]
        if not frames:
            return Culprit.UNKNOWN
        return Culprit.READING if any(_READ_AHEAD_FILE in frame for frame in frames) else Culprit.COMPUTING

    def exit_cause(self) -> tuple[str, str]:
        """Error class and message of the end of the process, which has been waited for."""
        code = self.process.exit_code
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"was killed by {_signal_name(-code)}"
        if code == -signal.SIGKILL and num_oom_kills() > self._num_oom_kills:
            return OUT_OF_MEMORY, "the kernel killed its process because memory ran out"
        if any(word in self._log_tail(_LOG_TAIL_BYTES) for word in _MEMORY_WORDS):
            return OUT_OF_MEMORY, f"an allocation failed, and its process {how}"
        if code == -signal.SIGKILL:
            return LOST, "its process was killed by SIGKILL, from outside"
        return CRASHED, f"its process {how}"

    def _log_bytes(self) -> int:
        """The size of its log; 0 if there is none, or if it was deleted with the run folder."""
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_tail(self, num_bytes: int) -> bytes:
        """The last bytes of what it has written to its log since its attempt started."""
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log_bytes() - num_bytes))
            return log.read()
        return b""

    def touch_ledger(self) -> None:
        """Touch its ledger, which shows in the run folder that it is alive.

        Raises:
            RunDeleted: the run folder was deleted.
        """
        if self._clock() - self._last_touch > TOUCH_SECONDS:
            self._last_touch = self._clock()
            self.ledger.touch()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
