"""The supervisor: runs child processes, one per slot, and replaces those that die or stall.

Workers hold the models and compute the results. Drawers draw the clips whose result is complete, while the workers
compute others. Whatever happens to a child, the attempt at its clip is counted, and the other clips continue.

    slots    0: worker ── clip a ── clip b ── clip d      ends when no clip is left to compute
             1: worker ── clip c ──╳ died                 the attempt counts; a new worker retries it, on its next rung
         draw0: drawer             clip a ── clip b …     workers wait when too many clips wait for drawers
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aot.errors import AotError
from aot.launching.display import Display
from aot.launching.messages import Heartbeat, LedgerEvent, Progress, Ready, Start
from aot.launching.plan import RunContext
from aot.launching.process import WorkerProcess, start_process, wait_for_messages
from aot.launching.slots import Slot
from aot.retry import CRASHED, LOST, OUT_OF_MEMORY, STALLED, Attempt, ladder, next_rung
from aot.runs.failure import record_failure
from aot.runs.ledger import TOUCH_SECONDS, Ledger
from aot.runs.task import ClipTask, Work
from aot.system.files import remove_parts_of
from aot.system.memory import num_oom_kills
from aot.system.processes import host

# Interval of the checks for stalled children, which send nothing by themselves.
_CHECK_SECONDS = 0.5
# A child that has used less than this fraction of one core since its last activity is not working. Sending heartbeats
# takes 0.2 ms per second.
_MIN_CPU_FRACTION = 0.02
# The time that a child has to abandon its clip cleanly.
_GRACE_SECONDS = 10.0
_MAX_FAILED_STARTS = 3
_START_SECONDS = 300.0
# The last words in the log of a C++ or Python process that ends because an allocation failed.
_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory")
_LOG_TAIL_BYTES = 4096
# How many complete clips may wait for every drawer before the workers wait, too. Clips differ in length, so that a few
# of them must fit; the drawings of all of them are left to the next command if this one is stopped.
_MAX_WAITING_PER_DRAWER = 8

StartProcess = Callable[[Slot, Path], WorkerProcess]
WaitForMessages = Callable[[Sequence[WorkerProcess], float], Sequence[WorkerProcess]]
Clock = Callable[[], float]


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of a supervisor's children."""

    stall_seconds: float
    """A child without activity for this long, in s, is replaced."""
    memory_gb: float | None
    """Private memory that a child may allocate, in units of 10⁹ bytes; None: no limit."""
    scheduler_task: str | None = None
    """The scheduler's id of the task that runs the supervisor; None: no scheduler."""


class _Pool:
    """The children of one kind, workers or drawers, and the clips that wait for them.

    Args:
        slots: their resources.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.num_slots = len(slots)
        self.free = deque(slots)
        self.queue: deque[ClipTask] = deque()
        self.num_failed_starts = 0


class Supervisor:
    """Processes clips in child processes.

    Args:
        run: the context that all clips share.
        slots: the resources of the children; one child runs in each slot at a time. At least one is a drawer's.
        limits: of every child.
        display: shows the progress.
        start_process, wait_for_messages, clock: replaced in tests, which start no processes and wait for nothing.
    """

    def __init__(
        self,
        run: RunContext,
        slots: Sequence[Slot],
        limits: WorkerLimits,
        display: Display,
        *,
        start_process: StartProcess = start_process,
        wait_for_messages: WaitForMessages = wait_for_messages,
        clock: Clock = time.monotonic,
    ) -> None:
        self._run = run
        self._workers = _Pool([slot for slot in slots if not slot.is_drawer])
        self._drawers = _Pool([slot for slot in slots if slot.is_drawer])
        self._drawn_later: deque[ClipTask] = deque()
        self._limits = limits
        self._display = display
        self._start_process = start_process
        self._wait_for_messages = wait_for_messages
        self._clock = clock
        self._rungs = ladder(run.config.frame_interval, run.config.ladder.max_frame_interval)
        self._children: list[_Child] = []
        self._reaped: set[tuple[str, int]] = set()

    def run(self, tasks: Sequence[ClipTask]) -> None:
        """Process all clips, in this order; the outcomes are recorded in the run folder.

        Raises:
            AotError: children die before they can take a clip, or the run folder cannot be written.
            KeyboardInterrupt: or another BaseException; the children have abandoned their clips cleanly.
        """
        self._workers.queue.extend(task for task in tasks if task.work is Work.ALL)
        # Not in the drawers' queue, whose length is limited: workers need not wait for clips of earlier commands.
        self._drawn_later.extend(task for task in tasks if task.work is not Work.ALL)
        try:
            while self._has_work():
                self._assign_clips()
                self._fill_slots()
                for process in self._wait_for_messages([child.process for child in self._children], _CHECK_SECONDS):
                    self._receive(next(child for child in self._children if child.process is process))
                self._check_children()
            self._end_children()
        except BaseException as stop:
            by = "the user" if isinstance(stop, KeyboardInterrupt) else type(stop).__name__
            self.abandon(f"stopped by {by}", is_counted=False)
            raise
        finally:
            if self._reaped:
                remove_parts_of(self._run.paths.root, self._reaped)

    def abandon(self, reason: str, *, is_counted: bool) -> None:
        """End all children; each abandons its clip cleanly, and the ledgers record it.

        Args:
            reason: recorded in the ledgers.
            is_counted: whether it counts as an attempt that was lost with its task.
        """
        for queue in (self._workers.queue, self._drawers.queue, self._drawn_later):
            queue.clear()
        children, self._children = self._children, []
        # A child that must be killed leaves a part file.
        self._reaped |= {(host(), child.process.pid) for child in children}
        for child in children:
            child.process.signal(signal.SIGINT)
        deadline = self._clock() + _GRACE_SECONDS
        for child in children:
            child.process.end(max(0.0, deadline - self._clock()))
            if child.task is not None:
                child.ledger.append(
                    "interrupted",
                    clip_id=child.task.clip.clip_id,
                    reason=reason,
                    is_counted=is_counted and not child.slot.is_drawer,
                )

    def _has_work(self) -> bool:
        is_waiting = self._workers.queue or self._drawers.queue or self._drawn_later
        return bool(is_waiting) or any(child.task for child in self._children)

    def _assign_clips(self) -> None:
        """Send a clip to every child that can take one; end the children for which none is left."""
        for child in self._children:
            if not child.is_idle:
                continue
            task = self._next_drawing() if child.slot.is_drawer else self._next_clip()
            if task is not None:
                child.send_task(task)
            elif not (self._workers.queue or (child.slot.is_drawer and self._is_computing())):
                child.send_task(None)

    def _next_clip(self) -> ClipTask | None:
        """The next clip to compute; None if there is none, or if too many clips wait for drawers."""
        queue = self._workers.queue
        is_full = len(self._drawers.queue) >= _MAX_WAITING_PER_DRAWER * self._drawers.num_slots
        return queue.popleft() if queue and not is_full else None

    def _next_drawing(self) -> ClipTask | None:
        queue = self._drawers.queue or self._drawn_later
        return queue.popleft() if queue else None

    def _is_computing(self) -> bool:
        """Whether a worker has a clip, which will have to be drawn."""
        return any(child.task and not child.slot.is_drawer for child in self._children)

    def _fill_slots(self) -> None:
        """Start children, as many as there are clips for them."""
        for pool, num_waiting in (
            (self._workers, len(self._workers.queue)),
            (self._drawers, len(self._drawers.queue) + len(self._drawn_later)),
        ):
            num_available = sum(child.task is None for child in self._children if self._pool(child) is pool)
            for _ in range(min(len(pool.free), num_waiting - num_available)):
                child = _Child(self._run, pool.free.popleft(), self._limits, self._clock)
                child.start(self._start_process)
                self._children.append(child)

    def _pool(self, child: _Child) -> _Pool:
        return self._drawers if child.slot.is_drawer else self._workers

    def _receive(self, child: _Child) -> None:
        """Handle the next message of a child."""
        try:
            message = child.process.receive()
        except EOFError:
            self._reap(child)
            return
        child.record_activity(message)
        if isinstance(message, Ready):
            self._pool(child).num_failed_starts = 0
            child.is_idle = True
        elif isinstance(message, Progress) and child.task is not None:
            self._display.show_progress(child.task.clip.clip_id, message.stage, message.fraction)
        elif isinstance(message, LedgerEvent):
            if message.event["event"] == "done" and child.task is not None:
                is_partial = bool(message.event["summary"]["object_errors"])
                self._drawers.queue.append(child.task.drawing(is_partial=is_partial))
            child.record_event(message.event)
            self._display.show_event(message.event)

    def _check_children(self) -> None:
        """Touch the ledgers of the children that are active; kill those that have stalled."""
        for child in list(self._children):
            if child.idle_seconds() <= child.max_idle_seconds:
                child.touch_ledger()
                continue
            child.process.signal(signal.SIGKILL)
            stalled = f"no activity for {child.idle_seconds():.0f} s; if it was busy, raise launcher.stall_seconds"
            self._reap(child, (STALLED, stalled))

    def _reap(self, child: _Child, cause: tuple[str, str] | None = None) -> None:
        """Free the slot of a dead child, count its attempt, and queue its clip again or record its failure.

        Args:
            child: whose process has ended, or has been killed.
            cause: error class and message, if known; None: derived from the exit code and the log.
        """
        self._children.remove(child)
        self._pool(child).free.append(child.slot)
        child.process.end(_GRACE_SECONDS)
        kind, error = cause or child.exit_cause()
        if child.task is None:
            if not child.is_ready:
                self._count_failed_start(child, error)
            return
        task = child.task
        self._reaped.add((host(), child.process.pid))
        if child.has_open_attempt or not child.has_started:
            rung = next_rung(self._rungs, task.attempts) or self._rungs[-1]  # the same choice as the child's
            task = replace(task, attempts=(*task.attempts, Attempt(rung, kind, error)))
            event = {"clip_id": task.clip.clip_id, "class": kind, "error": error}
            child.ledger.append("died", **event)
            self._display.show_event({"event": "died", **event})
        if next_rung(self._rungs, task.attempts) is None:
            self._fail(child, task)
        else:
            self._pool(child).queue.appendleft(task)

    def _fail(self, child: _Child, task: ClipTask) -> None:
        paths = self._run.paths
        ledger = Ledger(
            paths.ledger(child.name),
            scheduler_task=self._limits.scheduler_task,
            on_event=self._display.show_event,
        )
        record_failure(
            task,
            task.attempts,
            paths.clip(task.clip.clip_id),
            ledger,
            frame_interval=self._run.config.frame_interval,
            stage=child.stage,
            log=paths.log(child.name),
        )

    def _count_failed_start(self, child: _Child, error: str) -> None:
        pool = self._pool(child)
        pool.num_failed_starts += 1
        if pool.num_failed_starts >= _MAX_FAILED_STARTS:
            raise AotError(
                f"{pool.num_failed_starts} worker processes in a row died before they could take a clip ({error}); "
                f"see {self._run.paths.log(child.name)}"
            )

    def _end_children(self) -> None:
        """End the children when no clip is left."""
        for child in self._children:
            child.send_task(None)
        for child in self._children:
            child.process.end(_GRACE_SECONDS)
        self._children = []


class _Child:
    """One child process and its state.

    Args:
        run: the context that all clips share.
        slot: the resources of the process.
        limits: of the process.
        clock: time in s.
    """

    process: WorkerProcess

    def __init__(self, run: RunContext, slot: Slot, limits: WorkerLimits, clock: Clock) -> None:
        self.slot = slot
        # Successive children of a slot append to the same ledger: a worker is a slot, not a process.
        self.name = f"{host()}-{os.getpid()}-{slot.name}"
        self.ledger = Ledger(run.paths.ledger(self.name), scheduler_task=limits.scheduler_task)
        self.task: ClipTask | None = None
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
        """Start the process and send it the run."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self.process = start_process(self.slot, self._log)
        self.process.send(Start(self._run, self.name, self._limits.scheduler_task, self._limits.memory_gb))

    def send_task(self, task: ClipTask | None) -> None:
        """Send the next clip; None: there are no more, and the process ends."""
        self.task = task
        self.is_idle = False
        self._last_activity = self._clock()  # it has had nothing to do until now
        self.stage = None
        self.has_started = self.has_open_attempt = False
        self.process.send(task)

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
        if self.task is None:
            return
        if event["event"] == "started":
            self._start_event = event
            self.has_started = self.has_open_attempt = True
            self._num_oom_kills, self._log_start = num_oom_kills(), self._log.stat().st_size
        elif event["event"] == "attempt failed":
            attempt = Attempt.from_json(self._start_event | event)
            self.task = replace(self.task, attempts=(*self.task.attempts, attempt))
            self.has_open_attempt = False
        elif event["event"] == "scored":
            self.task = replace(self.task, is_scored=True)
        elif event["event"] in ("done", "ended"):
            self.task = None

    def exit_cause(self) -> tuple[str, str]:
        """Error class and message of the end of the process, which has been waited for."""
        code = self.process.exit_code
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"was killed by {_signal_name(-code)}"
        if code == -signal.SIGKILL and num_oom_kills() > self._num_oom_kills:
            return OUT_OF_MEMORY, "the kernel killed its process because memory ran out"
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - _LOG_TAIL_BYTES))
            tail = log.read()
        if any(word in tail for word in _MEMORY_WORDS):
            return OUT_OF_MEMORY, f"an allocation failed, and its process {how}"
        if code == -signal.SIGKILL:
            return LOST, "its process was killed by SIGKILL, from outside"
        return CRASHED, f"its process {how}"

    def touch_ledger(self) -> None:
        """Touch its ledger, which shows in the run folder that it is alive."""
        if self._clock() - self._last_touch > TOUCH_SECONDS:
            self._last_touch = self._clock()
            self.ledger.touch()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
