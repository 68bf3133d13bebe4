"""The supervisor: runs child processes, one per slot, and replaces those that die or stall.

Workers hold the models and compute the results. Drawers draw the clips whose result is complete, while the workers
compute others. Whatever happens to a child, the attempt at its clip is counted, and the other clips continue.

    slots    0: worker ── clip a ── clip b ── clip d      ends when no clip is left to compute
             1: worker ── clip c ──╳ died                 the attempt counts; a new worker retries it, on its next rung
         draw0: drawer             clip a ── clip b …     workers wait when too many clips wait for drawers
"""

from __future__ import annotations

import signal
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from aot.errors import AotError
from aot.launching.display import Display
from aot.launching.messages import LedgerEvent, Progress, Ready
from aot.launching.plan import RunContext
from aot.launching.process import WorkerProcess, start_process, wait_for_messages
from aot.launching.slots import Slot
from aot.launching.supervised_child import Clock, Culprit, StartProcess, SupervisedChild, WorkerLimits
from aot.launching.turns import find, following, remove, take_next
from aot.retry import STALLED, Attempt, ladder, next_rung
from aot.runs.claims import Claims
from aot.runs.failure import record_failure
from aot.runs.ledger import TOUCH_SECONDS, Ledger
from aot.runs.ledger_files import end_ledgers
from aot.runs.task import ClipTask, Work
from aot.system.attended_clock import AttendedClock
from aot.system.files import remove_parts_of
from aot.system.processes import host

# Interval of the checks for stalled children, which send nothing by themselves.
_CHECK_SECONDS = 0.5
# The time that a child has to abandon its clip cleanly.
_GRACE_SECONDS = 10.0
_MAX_FAILED_STARTS = 3
# How many complete clips may wait for every drawer before the workers wait, too. Clips differ in length, so that a few
# of them must fit; the drawings of all of them are left to the next command if this one is stopped.
_MAX_WAITING_PER_DRAWER = 8

WaitForMessages = Callable[[Sequence[WorkerProcess], float], Sequence[WorkerProcess]]


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
        self._claims = Claims(run.paths, clock)
        self._claimed: set[str] = set()
        self._computed_elsewhere: list[ClipTask] = []
        """Clips that living workers of other supervisors compute; looked at again later."""
        self._looked_elsewhere_at = clock()
        self._limits = limits
        self._display = display
        self._start_process = start_process
        self._wait_for_messages = wait_for_messages
        self._clock = clock
        self._attended_clock = AttendedClock(clock)
        self._computed: dict[str, set[str]] = defaultdict(set)
        """Worker → ids of the clips that it has computed, or tried to."""
        self._rungs = ladder(run.config.frame_interval, run.config.ladder.max_frame_interval)
        self._children: list[SupervisedChild] = []
        self._reaped: set[tuple[str, int]] = set()
        self._handled: set[str] = set()
        """Ids of the clips that were sent to a child."""
        self._names: set[str] = set()
        """Of all children."""

    def run(self, tasks: Sequence[ClipTask]) -> None:
        """Process all clips, in this order; the outcomes are recorded in the run folder.

        Raises:
            RunDeleted: the run folder was deleted.
            AotError: children die before they can take a clip, or the run folder cannot be written.
            KeyboardInterrupt: or another BaseException; the children have abandoned their clips cleanly.
        """
        self._workers.queue.extend(task for task in tasks if task.work is Work.ALL)
        # Not in the drawers' queue, whose length is limited: workers need not wait for clips of earlier commands.
        self._drawn_later.extend(task for task in tasks if task.work is not Work.ALL)
        try:
            while self._has_work():
                self._look_elsewhere()
                self._assign_clips()
                self._fill_slots()
                for process in self._wait_for_messages([child.process for child in self._children], _CHECK_SECONDS):
                    self._receive(next(child for child in self._children if child.process is process))
                self._check_children()
                self._release_claims()
            self._end_children()
            end_ledgers(self._run.paths, self._names)
        except BaseException as stop:
            by = "the user" if isinstance(stop, KeyboardInterrupt) else type(stop).__name__
            self.abandon(f"stopped by {by}")
            raise
        finally:
            if self._reaped:
                folders = {folder for clip_id in self._handled for folder in self._run.paths.clip(clip_id).folders}
                remove_parts_of(folders, self._reaped)

    @property
    def attended_seconds(self) -> float:
        """Time since construction in s, without the periods in which this process was stopped."""
        return self._attended_clock()

    def abandon(self, reason: str, *, is_time_limit: bool = False, by_scheduler: bool = False) -> None:
        """End all children; each abandons its clip cleanly, and the ledgers record it.

        Args:
            reason: recorded in the ledgers.
            is_time_limit: whether a time limit is the reason. It counts as an attempt at the clips that have had all
                the time of their worker, which was not enough.
            by_scheduler: whether the scheduler ends the task, so that its end says nothing about its clips.
        """
        for queue in (self._workers.queue, self._drawers.queue, self._drawn_later, self._computed_elsewhere):
            queue.clear()
        children, self._children = self._children, []
        # A child that must be killed leaves a part file.
        self._reaped |= {(host(), child.process.pid) for child in children}
        for child in children:
            child.process.signal(signal.SIGINT)
        deadline = self._clock() + _GRACE_SECONDS
        try:
            # At once, because a scheduler may kill this process before all children have ended.
            for child in children:
                if child.task is not None:
                    clip_id = child.task.clip.clip_id
                    is_counted = is_time_limit and self._computed[child.name] == {clip_id}
                    child.ledger.append(
                        "interrupted", clip_id=clip_id, reason=reason, is_counted=is_counted, by_scheduler=by_scheduler
                    )
        finally:
            for child in children:
                child.process.end(max(0.0, deadline - self._clock()))
            self._release_claims()

    def _has_work(self) -> bool:
        is_waiting = self._workers.queue or self._drawers.queue or self._drawn_later or self._computed_elsewhere
        return bool(is_waiting) or any(child.task for child in self._children)

    def _assign_clips(self) -> None:
        """Send a clip to every child that can take one; end the children for which none is left."""
        for child in self._children:
            if not child.is_idle:
                continue
            task = self._next_drawing() if child.slot.is_drawer else self._next_clip(child)
            if task is not None:
                self._handled.add(task.clip.clip_id)
            if task is not None and child.slot.is_drawer:
                child.send_task(task)
            elif task is not None:
                self._computed[child.name].add(task.clip.clip_id)
                child.send_task(task, self._following(child, task))
            elif not (self._workers.queue or (child.slot.is_drawer and self._is_computing())):
                child.send_task(None)

    def _next_clip(self, child: SupervisedChild) -> ClipTask | None:
        """The next clip for a worker; None if there is none, or if too many clips wait for drawers."""
        queue = self._workers.queue
        if len(self._drawers.queue) >= _MAX_WAITING_PER_DRAWER * self._drawers.num_slots:
            return None
        while queue:
            own = None if child.following is None else child.following.clip.clip_id
            task = take_next(queue, own, self._read_by_others(child))
            if self._claims.take(task.clip.clip_id, child.name):
                self._claimed.add(task.clip.clip_id)
                if not self._run.has_changed(task):
                    return task
            self._computed_elsewhere.append(task)
        return None

    def _look_elsewhere(self) -> None:
        """Queue the clips again that other supervisors have left; those that they have finished are not needed."""
        if not self._computed_elsewhere or self._clock() - self._looked_elsewhere_at < TOUCH_SECONDS:
            return
        self._looked_elsewhere_at = self._clock()
        left = [task for task in self._computed_elsewhere if not self._claims.is_claimed(task.clip.clip_id)]
        if not left:
            return
        self._computed_elsewhere = [task for task in self._computed_elsewhere if task not in left]
        for task in self._run.tasks_for([(task.clip, task.fingerprint) for task in left]):
            if task.work is Work.ALL:
                self._workers.queue.append(task)
            elif task.work is Work.OVERLAY:
                self._drawn_later.append(task)
            else:
                state = "done" if task.work is Work.NOTHING else "failed"
                self._display.show_event({"event": "ended", "clip_id": task.clip.clip_id, "state": state})

    def _release_claims(self) -> None:
        """Release the clips that no worker computes any more."""
        computing = {child.task.clip.clip_id for child in self._children if child.task and not child.slot.is_drawer}
        for clip_id in self._claimed - computing:
            self._claims.release(clip_id)
        self._claimed &= computing

    def _following(self, child: SupervisedChild, task: ClipTask) -> ClipTask | None:
        """The clip that a worker reads ahead while it computes one."""
        others = [each for each in self._children if each is not child and not each.slot.is_drawer]
        num_waiting = sum(each.task is None for each in others) + len(self._workers.free)
        return following(self._workers.queue, task, self._read_by_others(child), num_waiting)

    def _read_by_others(self, child: SupervisedChild) -> set[str]:
        """Ids of the clips that other workers were to read ahead."""
        return {each.following.clip.clip_id for each in self._children if each is not child and each.following}

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
                child = SupervisedChild(self._run, pool.free.popleft(), self._limits, self._attended_clock)
                child.start(self._start_process)
                self._names.add(child.name)
                self._children.append(child)

    def _pool(self, child: SupervisedChild) -> _Pool:
        return self._drawers if child.slot.is_drawer else self._workers

    def _receive(self, child: SupervisedChild) -> None:
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
                is_partial, after = message.event["is_partial"], message.event["at"]
                self._drawers.queue.append(child.task.drawing(is_partial=is_partial, after=after))
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

    def _reap(self, child: SupervisedChild, cause: tuple[str, str] | None = None) -> None:
        """Free the slot of a dead child, count its attempt, and queue its clips again or record their failure.

        Args:
            child: whose process has ended, or has been killed.
            cause: error class and message, if known; None: derived from the exit code and the log.
        """
        self._children.remove(child)
        self._pool(child).free.append(child.slot)
        child.process.end(_GRACE_SECONDS)
        kind, error = cause or child.exit_cause()
        if child.task is None and child.reading is None:
            if not child.is_ready:
                self._count_failed_start(child, error)
            return
        self._reaped.add((host(), child.process.pid))
        is_computing = child.task is not None and (child.has_open_attempt or not child.has_started)
        culprit = child.culprit(is_computing=is_computing, is_killed_by_us=cause is not None)
        read = None if child.reading is None else self._end_reading(child, culprit, kind, error)
        computed = child.task
        if computed is not None and is_computing:
            if culprit is Culprit.COMPUTING:
                computed = self._charge(child, computed, kind, error)
            else:
                computed = self._spare(child, computed, culprit, error)
        # In the order in which they were in the queue.
        for task, stage in ((read, None), (computed, child.stage)):
            if task is not None:
                self._queue_again(child, task, stage)

    def _end_reading(self, child: SupervisedChild, culprit: Culprit, kind: str, error: str) -> ClipTask | None:
        """Take the clip that a dead child was reading ahead from the queue; None if another worker has it."""
        child.ledger.append("read ahead", clip_id=child.reading, error=error)
        task = find(self._workers.queue, child.reading)
        if task is None:
            return None
        remove(self._workers.queue, task)
        task = replace(task, after=child.ledger.latest)
        if culprit is Culprit.READING:
            return self._charge(child, task, kind, error)
        return replace(task, is_suspect=task.is_suspect or culprit is Culprit.UNKNOWN)

    def _charge(self, child: SupervisedChild, task: ClipTask, kind: str, error: str) -> ClipTask:
        """Count the attempt at a clip of which a child has died."""
        rung = next_rung(self._rungs, task.attempts) or self._rungs[-1]  # the same choice as the child's
        event = {"clip_id": task.clip.clip_id, "class": kind, "error": error}
        child.ledger.append("died", **event)
        self._display.show_event({"event": "died", **event})
        return replace(task, attempts=(*task.attempts, Attempt(rung, kind, error)), after=child.ledger.latest)

    def _spare(self, child: SupervisedChild, task: ClipTask, culprit: Culprit, error: str) -> ClipTask:
        """Record that a clip was interrupted by the death of a child for which another clip may be the reason."""
        reason = f"{error}, while {child.reading} was read ahead"
        event = {"clip_id": task.clip.clip_id, "reason": reason, "is_counted": False}
        child.ledger.append("interrupted", **event)
        self._display.show_event({"event": "interrupted", **event})
        is_suspect = task.is_suspect or culprit is Culprit.UNKNOWN
        return replace(task, is_suspect=is_suspect, after=child.ledger.latest)

    def _queue_again(self, child: SupervisedChild, task: ClipTask, stage: str | None) -> None:
        if next_rung(self._rungs, task.attempts) is None:
            self._fail(child, task, stage)
        else:
            self._pool(child).queue.appendleft(task)

    def _fail(self, child: SupervisedChild, task: ClipTask, stage: str | None) -> None:
        paths = self._run.paths
        ledger = Ledger(
            paths,
            child.name,
            scheduler_task=self._limits.scheduler_task,
            on_event=self._display.show_event,
        )
        record_failure(
            task,
            task.attempts,
            paths.clip(task.clip.clip_id),
            ledger,
            frame_interval=self._run.config.frame_interval,
            stage=stage,
            log=paths.log(child.name),
        )

    def _count_failed_start(self, child: SupervisedChild, error: str) -> None:
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
