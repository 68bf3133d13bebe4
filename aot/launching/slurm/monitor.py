"""Waiting for SLURM tasks: progress is read from the ledgers, and squeue is called rarely.

clips of our tasks ── all ended, according to the ledgers ──────────────────────> done
      └── tasks gone, according to squeue ── open attempts are counted ── submitted again, at most three times
                                          └─ task was cancelled ────────> recorded in failures/
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from aot.errors import ConfigError
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.slurm import squeue
from aot.launching.slurm.squeue import (
    ENDED,
    GONE,
    STATE_CANCELLED,
    STATE_OUT_OF_MEMORY,
    STATE_PREEMPTED,
    STATE_TIMEOUT,
)
from aot.launching.slurm.submissions import (
    LivingArray,
    Submission,
    read_related_submissions,
    read_submissions,
)
from aot.launching.slurm.submit_lock import Clock, submitting
from aot.retry import LOST, OUT_OF_MEMORY, REPEATS, ladder, next_rung
from aot.runs.failure import CANCELLED, record_failure
from aot.runs.history import History, close_cancelled, ledger_of, read_history
from aot.runs.ledger import Ledger, LedgerTail, require_run
from aot.runs.ledger_files import end_ledgers_of_tasks
from aot.runs.parts import PartSweeper
from aot.runs.state import merge_ended_ledgers
from aot.runs.task import ClipTask
from aot.system.processes import host
from aot.system.text import counted, first_names

Submit = Callable[[Plan, Sequence[ClipTask], Sequence[LivingArray], Callable[[], None]], Submission]
"""Submits clips; called with the living arrays and with a function to call after every array."""

# Interval between looks at the ledgers of living workers.
_LEDGER_SECONDS = 15.0
# A task that is being requeued may look ended for a moment: two calls of squeue must agree.
_CONFIRM_SECONDS = 5.0
_MAX_REFUSALS = 5
_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD"})
_STARTED = ENDED | {"RUNNING", "COMPLETING", "SUSPENDED", "CONFIGURING"}


class Queue(Protocol):
    """What SLURM knows about tasks: the functions of `aot.launching.slurm.squeue`."""

    def task_states(self, tasks: Iterable[str]) -> dict[str, str] | None: ...

    def last_states(self, tasks: Iterable[str]) -> dict[str, str]: ...


class SlurmWait:
    """The tasks of one run: those that this command submits, and living ones of earlier commands.

    Args:
        plan: of the run.
        submit: submits clips.
        poll_seconds: interval between calls of squeue, in s.
        queue, clock: replaced in tests, which have no SLURM and wait for nothing.
    """

    def __init__(
        self, plan: Plan, submit: Submit, poll_seconds: float, *, queue: Queue = squeue, clock: Clock = time
    ) -> None:
        self._plan = plan
        self._submit = submit
        self._poll_seconds = poll_seconds
        self._queue = queue
        self._clock = clock
        self._clips_of: dict[str, tuple[str, ...]] = {}
        """SLURM task → ids of its clips."""
        self._submissions: dict[str, Submission] = {}
        self._states: dict[str, str] = {}
        """SLURM task → its state when squeue was last called."""
        self._covers_all_clips = True
        """Whether every clip is in a task that this command submitted, so that the ledgers show all ends."""
        self._begun = clock.monotonic()
        self._tail = LedgerTail(plan.paths)
        self._parts = PartSweeper(plan.paths, clock.monotonic)
        self._waited_for: set[str] = set()
        self._num_lost: Counter[str] = Counter()
        """Clip id → how many of its tasks have ended before the clip was done, for no ordinary reason."""

    def begin(self, tasks: Sequence[ClipTask]) -> None:
        """Submit the clips that no living SLURM task has.

        Raises:
            ConfigError: SLURM refused, or does not answer; nothing was started.
        """
        self._begun = self._clock.monotonic()
        self._tail.skip()  # the plan already accounts for earlier events
        self._join_or_submit(tasks)

    def _join_or_submit(self, tasks: Sequence[ClipTask]) -> None:
        """Follow the living tasks that have some of these clips, and submit the other clips.

        Raises:
            ConfigError: as `begin`.
        """
        with submitting(self._plan.paths, self._clock) as show_life:
            earlier = {slurm_task: each for each in read_submissions(self._plan.paths) for slurm_task in each.tasks}
            related = {
                slurm_task: each for each in read_related_submissions(self._plan.paths) for slurm_task in each.tasks
            }
            states = self._queue.task_states(earlier | related)
            if states is None:
                raise ConfigError(
                    "squeue does not answer, and tasks of an earlier command may still run; try again later"
                )
            living = {task: each for task, each in (earlier | related).items() if states.get(task, GONE) not in ENDED}
            wanted = {task.clip.clip_id for task in tasks}
            for slurm_task, submission in earlier.items():
                if slurm_task in living and wanted & set(submission.tasks[slurm_task]):
                    self._follow(submission, [slurm_task])
            submitted_before = self._clip_ids()
            left = [task for task in tasks if task.clip.clip_id not in submitted_before]
            if submitted_before:
                self._covers_all_clips = False
                print(f"{counted(len(wanted & submitted_before), 'clip')} in tasks that were submitted before")
            if left:
                self._hand_over(left, _living_arrays(living), show_life)

    def __call__(self) -> None:
        """Wait until every clip is done or has failed.

        Raises:
            RunDeleted: the run folder was deleted; the SLURM tasks end by themselves.
            WriteError: the run folder cannot be written.
            KeyboardInterrupt: the user stopped waiting; the SLURM tasks continue.
        """
        try:
            with Display(len(self._waited_for), seconds_before=self._clock.monotonic() - self._begun) as display:
                while True:
                    again = self._reconcile(self._watch(display), display)
                    if not again:
                        break
                    _announce_again(again)
                    self._clips_of, self._covers_all_clips = {}, True
                    if not self._hand_over_again([task for task, _ in again]):
                        break
        except KeyboardInterrupt:
            root = shlex.quote(str(self._plan.paths.root))
            print(
                f"\nthe tasks continue without this command: python -m aot.status {root}; python -m aot.cancel {root}",
                file=sys.stderr,
            )
            raise
        self._parts.sweep()

    def _hand_over(
        self, tasks: Sequence[ClipTask], living: Sequence[LivingArray], show_life: Callable[[], None]
    ) -> None:
        submission = self._submit(self._plan, tasks, living, show_life)
        self._follow(submission, list(submission.tasks))
        self._waited_for.update(task.clip.clip_id for task in tasks)
        if sum(map(len, submission.tasks.values())) < len(tasks):
            self._covers_all_clips = False
        num_tasks, jobs = counted(len(submission.tasks), "task"), ", ".join(submission.jobs)
        later = sum(bool(submission.after.get(task.partition("_")[0])) for task in submission.tasks)
        note = f", {later} of them to start when the tasks before them have ended" if later else ""
        print(f"submitted {num_tasks} as {jobs}{note}; logs in {submission.folder}")

    def _hand_over_again(self, tasks: Sequence[ClipTask]) -> bool:
        """Submit clips that are not done; False if SLURM keeps refusing, as it does for a while when it restarts."""
        for number in range(_MAX_REFUSALS):
            if number:
                print(f"trying again in {self._poll_seconds:g} s", file=sys.stderr)
                self._clock.sleep(self._poll_seconds)
            try:
                self._join_or_submit(tasks)
                return True
            except ConfigError as refused:
                print(refused, file=sys.stderr)
        print(f"{counted(len(tasks), 'clip')} left; run the same command again to process them", file=sys.stderr)
        return False

    def _follow(self, submission: Submission, slurm_tasks: Sequence[str]) -> None:
        for slurm_task in slurm_tasks:
            self._clips_of[slurm_task] = submission.tasks[slurm_task]
            self._waited_for.update(submission.tasks[slurm_task])
            self._submissions[slurm_task] = submission

    def _clip_ids(self) -> set[str]:
        return {clip_id for clip_ids in self._clips_of.values() for clip_id in clip_ids}

    def _watch(self, display: Display) -> dict[str, str]:
        """Show progress until every clip has ended (returns nothing) or every task is gone (returns their states)."""
        open_clips = self._clip_ids()
        next_poll = self._clock.monotonic() + self._poll_seconds
        has_seen_end = False
        while True:
            require_run(self._plan.paths)
            self._parts.watch()
            self._show_new_events(open_clips, display)
            merge_ended_ledgers(self._plan.paths)
            if not open_clips:
                return {}
            if self._clock.monotonic() >= next_poll:
                states = self._queue.task_states(self._clips_of)
                self._show_requeued(states or {}, display)
                is_end = states is not None and ENDED.issuperset(states.values())
                if is_end and has_seen_end:
                    return states or {}
                has_seen_end = is_end
                next_poll = self._clock.monotonic() + (
                    min(_CONFIRM_SECONDS, self._poll_seconds) if is_end else self._poll_seconds
                )
            until_poll = max(0.1, next_poll - self._clock.monotonic())
            self._clock.sleep(min(_LEDGER_SECONDS, until_poll))

    def _show_new_events(self, open_clips: set[str], display: Display) -> None:
        """Show the new events of these clips; those that have ended are removed from the set."""
        interrupted = defaultdict(list)
        for event in self._tail.new_events():
            if event.get("clip_id") in open_clips:
                display.show_event(event)
                if event["event"] == "ended":
                    open_clips.discard(event["clip_id"])
                elif event["event"] == "interrupted":
                    interrupted[event["reason"]].append(event["clip_id"])
        for reason, clip_ids in interrupted.items():
            display.print_line(f"interrupted: {first_names(clip_ids)}: {reason}")

    def _show_requeued(self, states: Mapping[str, str], display: Display) -> None:
        """Name the tasks that SLURM will run again although they have run before.

        Args:
            states: of the SLURM tasks, those of tasks that squeue does not know included.
            display: to print to.
        """
        requeued = [task for task in states if states[task] in _WAITING and self._states.get(task) in _STARTED]
        self._states |= states
        if requeued:
            display.print_line(
                f"requeued by SLURM, to run again: {counted(len(requeued), 'task')} ({first_names(requeued)})"
            )

    def _reconcile(self, states: Mapping[str, str], display: Display) -> list[tuple[ClipTask, str]]:
        """Count the attempts that died with their SLURM tasks, and record clips that must not be submitted again.

        Args:
            states: of the SLURM tasks; empty if all clips have ended.
            display: shows the failures.
        Returns:
            The clips to submit again, and how their tasks ended; empty if SLURM did not accept their tasks.
        """
        if not states and self._covers_all_clips:
            return []
        states = {**states, **self._queue.last_states(task for task, state in states.items() if state == GONE)}
        history = self._read_history()
        # When a single pending task of an array is cancelled, squeue and sacct forget it immediately.
        cancelled = {
            slurm_task
            for slurm_task, state in states.items()
            if state == STATE_CANCELLED or (state == GONE and slurm_task not in history.scheduler_tasks)
        }
        self._count_open_attempts(history, states, cancelled)
        if states:
            end_ledgers_of_tasks(self._plan.paths, states.keys())
        slurm_task_of = {clip_id: task for task, clip_ids in self._clips_of.items() for clip_id in clip_ids}
        config = self._plan.config
        rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
        again = []
        for task in self._plan.tasks():
            if task.clip.clip_id not in self._waited_for or not task.is_pending:
                continue
            slurm_task = slurm_task_of.get(task.clip.clip_id)
            if slurm_task is None:  # SLURM did not accept all tasks
                again.append((task, ""))
            elif slurm_task in cancelled:
                message = f"its task {slurm_task} was cancelled before the clip was done"
                self._fail(task, slurm_task, display, CANCELLED, message)
            elif next_rung(rungs, task.attempts) is None:
                self._fail(task, slurm_task, display)
            elif self._num_lost[task.clip.clip_id] >= REPEATS[LOST]:
                ended = f"its task {slurm_task} ended as {states.get(slurm_task, GONE)} before the clip was done"
                self._fail(task, slurm_task, display, LOST, f"{ended}, as did {REPEATS[LOST]} other tasks before it")
            else:
                again.append((task, states.get(slurm_task, "")))
                if slurm_task in states and not _is_ordinary(states[slurm_task], slurm_task, history):
                    self._num_lost[task.clip.clip_id] += 1
        return again

    def _read_history(self) -> History:
        digests = {clip_id: fingerprint.digest for clip_id, fingerprint in self._plan.fingerprints.items()}
        return read_history(self._plan.paths, digests)

    def _count_open_attempts(self, history: History, states: Mapping[str, str], cancelled: Collection[str]) -> None:
        """Record the end of the attempts that died with their SLURM tasks.

        Args:
            history: of the run.
            states: of the SLURM tasks.
            cancelled: those that were cancelled.
        """
        close_cancelled(self._plan.paths, history, cancelled)
        for started in history.open:
            state = states.get(started.get("task", ""))
            if state is not None and started["task"] not in cancelled:
                self._record_end(started, state, had_time=history.had_all_time_of_worker(started))
        for started in history.interrupted:
            # SLURM may terminate a task before it kills it for its memory, so that the attempt is not open any more.
            if states.get(started.get("task", "")) == STATE_OUT_OF_MEMORY:
                self._record_end(started, STATE_OUT_OF_MEMORY)

    def _record_end(self, started: dict[str, Any], state: str, *, had_time: bool = False) -> None:
        """Record the end of an attempt that died with its SLURM task.

        Args:
            started: the event of the attempt.
            state: final state of the task.
            had_time: whether the clip had all the time of its worker, so that a time limit counts.
        """
        ledger, clip_id = ledger_of(self._plan.paths, started), started["clip_id"]
        ended = f"its task {started['task']} ended as {state}"
        if state in (STATE_PREEMPTED, STATE_TIMEOUT):
            is_counted = had_time and state == STATE_TIMEOUT
            ledger.append("interrupted", clip_id=clip_id, reason=ended, is_counted=is_counted)
        else:
            kind = OUT_OF_MEMORY if state == STATE_OUT_OF_MEMORY else LOST
            ledger.append("died", clip_id=clip_id, **{"class": kind, "error": ended})

    def _fail(
        self, task: ClipTask, slurm_task: str, display: Display, kind: str | None = None, message: str | None = None
    ) -> None:
        paths = self._plan.paths
        record_failure(
            task,
            task.attempts,
            paths.clip(task.clip.clip_id),
            Ledger(paths, f"{host()}-{os.getpid()}", on_event=display.show_event),
            frame_interval=self._plan.config.frame_interval,
            log=self._submissions[slurm_task].log(slurm_task),
            kind=kind,
            message=message,
        )


def _living_arrays(living: Mapping[str, Submission]) -> list[LivingArray]:
    """The arrays of living tasks.

    Args:
        living: task → its submission.
    """
    num_tasks = Counter(task.partition("_")[0] for task in living)
    after = {job: jobs for submission in living.values() for job, jobs in submission.after.items()}
    return [LivingArray(job, number, after.get(job, ())) for job, number in num_tasks.items()]


def _announce_again(again: Sequence[tuple[ClipTask, str]]) -> None:
    """Print which clips are submitted again, and why.

    Args:
        again: the clips, and how their tasks ended; empty if SLURM did not accept their tasks.
    """
    clips_of = defaultdict(list)
    for task, state in again:
        clips_of[state].append(task.clip.clip_id)
    for state, clip_ids in clips_of.items():
        why = (
            f"their tasks ended as {state} before the clips were done" if state else "SLURM did not accept their tasks"
        )
        why = "SLURM has no record of their tasks any more" if state == GONE else why
        print(f"to be submitted again: {counted(len(clip_ids), 'clip')} ({first_names(clip_ids)}): {why}")


def _is_ordinary(state: str, slurm_task: str, history: History) -> bool:
    """Whether a task did not end because of its clips: it was preempted, or reached its time limit after some work."""
    is_stopped = state == STATE_TIMEOUT or slurm_task in history.stopped_tasks
    return state == STATE_PREEMPTED or (is_stopped and slurm_task in history.scheduler_tasks)
