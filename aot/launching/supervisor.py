"""The supervisor: child processes that hold the models, one a slot, and someone who sees to it that none of them stops
the others. Whatever happens to a child, its clip's attempt is counted and the next clip goes on.

    slots    0: child ── clip ── clip ── clip
             1: child ── clip ──╳ died        the attempt counts; a new child goes on, with this clip on its next rung
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any

from aot.errors import AotError
from aot.launching.display import Display
from aot.launching.messages import Beat, Noted, Progress, Ready, Start
from aot.launching.plan import RunContext
from aot.launching.slots import Slot
from aot.retry import CRASHED, LOST, OUT_OF_MEMORY, STALLED, Attempt, ladder, next_rung
from aot.runs.failure import record_failure
from aot.runs.ledger import TOUCH_SECONDS, Ledger
from aot.runs.task import ClipTask, Work
from aot.system.files import remove_parts_of
from aot.system.memory import num_oom_kills
from aot.system.processes import host

# Between two looks at what does not report itself: a child that stands still.
_TICK_SECONDS = 0.5
# A child that used less of one core than this since its last sign of life is not working: its heart alone takes some
# 0.2 ms a second.
_LIVELY_SHARE = 0.02
# For a child to put away what it has in hand.
_GRACE_SECONDS = 10.0
_MAX_FAILED_STARTS = 3
_START_SECONDS = 300.0
# What C++ and Python say last when they get no memory and nobody catches it.
_MEMORY_WORDS = (b"bad_alloc", b"MemoryError", b"Cannot allocate memory")
_LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class WorkerLimits:
    """How a supervisor treats its children."""

    stall_seconds: float
    """A child without a sign of life for so long is replaced."""
    memory_gb: float | None
    """The most memory of its own a child may have; None: as much as there is."""
    task: str | None = None
    """What the scheduler calls the task that this is part of."""


class Supervisor:
    """Runs clips in child processes.

    Args:
        run: what holds for all clips.
        slots: the places for children.
        limits: how they are treated.
        display: is told what happens.
    """

    def __init__(self, run: RunContext, slots: Sequence[Slot], limits: WorkerLimits, display: Display) -> None:
        self._run = run
        self._free = deque(slots)
        self._care = limits
        self._display = display
        self._rungs = ladder(run.config.frame_interval, run.config.ladder.max_frame_interval)
        self._queue: deque[ClipTask] = deque()
        self._children: list[_Child] = []
        self._reaped: set[tuple[str, int]] = set()
        self._failed_starts = 0

    def run(self, todo: Sequence[ClipTask]) -> None:
        """Run all clips, in this order; what came of them lies on the disk.

        Raises:
            AotError: children die before they can take a clip, or the run folder cannot be written.
            KeyboardInterrupt: or what else ends this process; children have put away what they had in hand.
        """
        self._queue.extend(todo)
        try:
            while self._queue or any(child.todo for child in self._children):
                self._fill_slots()
                for connection in wait([child.connection for child in self._children], timeout=_TICK_SECONDS):
                    self._hear(next(child for child in self._children if child.connection is connection))
                self._watch()
            self._dismiss()
        except BaseException as stop:
            by = "the user" if isinstance(stop, KeyboardInterrupt) else type(stop).__name__
            self.give_up(f"stopped by {by}", is_counted=False)
            raise
        finally:
            if self._reaped:
                remove_parts_of(self._run.paths.root, self._reaped)

    def give_up(self, reason: str, *, is_counted: bool) -> None:
        """End all children; what each had in hand is given up cleanly, and the ledgers say so.

        Args:
            reason: as the ledgers note it.
            is_counted: whether it counts as an attempt that was lost with its task.
        """
        self._queue.clear()
        children, self._children = self._children, []
        self._reaped |= {(host(), child.pid) for child in children}  # one that must be killed leaves half a file
        for child in children:
            child.signal(signal.SIGINT)
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in children:
            child.end(max(0.0, deadline - time.monotonic()))
            if child.todo is not None:
                child.ledger.append(
                    "interrupted", clip_id=child.todo.clip.clip_id, reason=reason, is_counted=is_counted
                )

    def _fill_slots(self) -> None:
        while self._free and len(self._queue) > sum(child.todo is None for child in self._children):
            slot = self._free.popleft()
            self._children.append(_Child(self._run, slot, self._care))

    def _hear(self, child: _Child) -> None:
        try:
            message = child.connection.recv()
        except (EOFError, OSError):
            self._reap(child)
            return
        child.record_activity(message)
        if isinstance(message, Ready):
            self._failed_starts = 0
            child.todo = self._queue.popleft() if self._queue else None
            child.hand_over()
        elif isinstance(message, Progress) and child.todo is not None:
            self._display.advance(child.todo.clip.clip_id, message.stage, message.share)
        elif isinstance(message, Noted):
            child.note(message.event)
            self._display.hear(message.event)

    def _watch(self) -> None:
        """Touch the ledgers of the living; end who stands still."""
        for child in list(self._children):
            if child.silent_seconds() <= child.patience_seconds:
                child.touch_ledger()
                continue
            child.signal(signal.SIGKILL)
            stalled = f"no sign of life for {child.silent_seconds():.0f} s; raise launcher.stall_seconds if it was busy"
            self._reap(child, (STALLED, stalled))

    def _reap(self, child: _Child, cause: tuple[str, str] | None = None) -> None:
        """Free the slot of a dead child, count its attempt, and decide what becomes of its clip."""
        self._children.remove(child)
        self._free.append(child.slot)
        child.end(_GRACE_SECONDS)
        kind, error = cause or child.cause_of_death()
        if child.todo is None:
            if not child.is_ready:
                self._count_failed_start(child, error)
            return
        todo = child.todo
        self._reaped.add((host(), child.pid))
        if child.has_open_attempt or not child.has_begun:
            rung = next_rung(self._rungs, todo.attempts) or self._rungs[-1]  # as the child came to it
            todo = replace(todo, attempts=(*todo.attempts, Attempt(rung, kind, error)))
            event = {"clip_id": todo.clip.clip_id, "class": kind, "error": error}
            child.ledger.append("died", **event)
            self._display.hear({"event": "died", **event})
        if next_rung(self._rungs, todo.attempts) is None:
            self._fail(child, todo)
        else:
            self._queue.appendleft(todo)

    def _fail(self, child: _Child, todo: ClipTask) -> None:
        paths = self._run.paths
        ledger = Ledger(paths.ledger(child.name), task=self._care.task, on_event=self._display.hear)
        record_failure(
            todo,
            todo.attempts,
            paths.clip(todo.clip.clip_id),
            ledger,
            frame_interval=self._run.config.frame_interval,
            stage=child.stage,
            log=paths.log(child.name),
        )

    def _count_failed_start(self, child: _Child, error: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _MAX_FAILED_STARTS:
            raise AotError(
                f"{self._failed_starts} worker processes in a row died before they could take a clip ({error}); "
                f"{self._run.paths.log(child.name)} says why"
            )

    def _dismiss(self) -> None:
        """End the children, which have nothing left to do."""
        for child in self._children:
            child.todo = None
            child.hand_over()
        for child in self._children:
            child.end(_GRACE_SECONDS)
        self._children = []


class _Child:
    """One child process, and what is known of it."""

    def __init__(self, run: RunContext, slot: Slot, limits: WorkerLimits) -> None:
        self.slot = slot
        # Those who take over a slot write on in the same ledger: a worker is a place, not a process.
        self.name = f"{host()}-{os.getpid()}-{slot.number}"
        self.ledger = Ledger(run.paths.ledger(self.name), task=limits.task)
        self.todo: ClipTask | None = None
        self.stage: str | None = None
        self.is_ready = False
        self.has_begun = self.has_open_attempt = False
        self._started: dict[str, Any] = {}
        self._care = limits
        self._log = run.paths.log(self.name)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._num_oom_kills = num_oom_kills()
        self._cpu_seconds = 0.0
        self._last_life = self._last_touch = time.monotonic()
        ours, theirs = socket.socketpair()
        with self._log.open("ab") as log:
            self._log_start = log.tell()
            # In a session of its own: Ctrl-C is for the supervisor, who then ends its children in good order.
            self._process = subprocess.Popen(  # noqa: S603 (our own module, by our own interpreter)
                [sys.executable, "-m", "aot.launching.child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=slot.environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()
        self.connection = Connection(ours.detach())
        self._send(Start(run, self.name, limits.task, limits.memory_gb))

    def hand_over(self) -> None:
        """Send what it is to do: a clip, or nothing more."""
        self.stage = None
        self.has_begun = self.has_open_attempt = False
        self._send(self.todo)

    def record_activity(self, message: Any) -> None:
        """A message came; a heart that beats while nothing is done is no sign of life."""
        self.is_ready = True
        if isinstance(message, Beat):
            used = message.cpu_seconds - self._cpu_seconds
            if used < _LIVELY_SHARE * (time.monotonic() - self._last_life):
                return
            self._cpu_seconds = message.cpu_seconds
        elif isinstance(message, Progress):
            self.stage = message.stage
        self._last_life = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def patience_seconds(self) -> float:
        """How long it may stand still; a new process may take its time to import what lies on a file server."""
        return self._care.stall_seconds if self.is_ready else max(self._care.stall_seconds, _START_SECONDS)

    def silent_seconds(self) -> float:
        """How long it has shown no sign of life; one that waits for a clip needs none."""
        return 0.0 if self.is_ready and self.todo is None else time.monotonic() - self._last_life

    def note(self, event: dict[str, Any]) -> None:
        """It has written this to its ledger."""
        if self.todo is None:
            return
        if event["event"] == "started":
            self._started = event
            self.has_begun = self.has_open_attempt = True
            self._num_oom_kills, self._log_start = num_oom_kills(), self._log.stat().st_size
        elif event["event"] == "attempt failed":
            attempt = Attempt.from_json(self._started | event)
            self.todo = replace(self.todo, attempts=(*self.todo.attempts, attempt))
            self.has_open_attempt = False
        elif event["event"] == "done":
            # What may still go wrong is the drawing.
            self.todo = replace(self.todo, work=Work.OVERLAY, attempts=())
        elif event["event"] == "ended":
            self.todo = None

    def cause_of_death(self) -> tuple[str, str]:
        """Class and words of what ended the process, which has been waited for."""
        code = self._process.returncode
        how = f"ended with exit code {code}" if code is None or code >= 0 else f"was ended by {_signal_name(-code)}"
        if code == -signal.SIGKILL and num_oom_kills() > self._num_oom_kills:
            return OUT_OF_MEMORY, "the kernel ended its process for want of memory"
        with self._log.open("rb") as log:
            log.seek(max(self._log_start, self._log.stat().st_size - _LOG_TAIL_BYTES))
            tail = log.read()
        if any(word in tail for word in _MEMORY_WORDS):
            return OUT_OF_MEMORY, f"its process got no memory and {how}"
        if code == -signal.SIGKILL:
            return LOST, "its process was killed from outside (SIGKILL)"
        return CRASHED, f"its process {how}"

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and those it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self, timeout_seconds: float) -> None:
        """Wait for the process to end by itself, then end it; afterwards nothing of it is left open."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # it may hang in a file server's call: the kernel ends it later
                self._process.wait(_GRACE_SECONDS)
        self.connection.close()

    def touch_ledger(self) -> None:
        """Show in the run folder that it is alive."""
        if time.monotonic() - self._last_touch > TOUCH_SECONDS:
            self._last_touch = time.monotonic()
            self.ledger.touch()

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # it is dead: the other direction will say so
            self.connection.send(message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
