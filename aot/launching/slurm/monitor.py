"""Waiting for SLURM's tasks: fed by the ledgers, with a seldom look at squeue, and never without an end.

clips of our tasks ── all ended, by the ledgers ────────────────────────────────> done
      └── tasks gone, by squeue ── what they left open is counted ── submitted again, three times at most
                                └─ someone cancelled them ──────────> recorded in failures/
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from aot.errors import ConfigError
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.slurm.squeue import (
    ENDED,
    GONE,
    STATE_CANCELLED,
    STATE_OUT_OF_MEMORY,
    last_states,
    task_states,
)
from aot.launching.slurm.submissions import Submission, read_submissions
from aot.retry import LOST, OUT_OF_MEMORY, REPEATS, ladder, next_rung
from aot.runs.failure import CANCELLED, record_failure
from aot.runs.history import close_cancelled, read_history
from aot.runs.ledger import Ledger, LedgerTail, read_events
from aot.runs.task import ClipTask, Work
from aot.system.files import remove_parts_of
from aot.system.processes import host

Submit = Callable[[Plan, Sequence[ClipTask]], Submission]

_LEDGER_SECONDS = 1.0
# A task that is being requeued may look ended for a moment: its end is believed when it is seen twice.
_CONFIRM_SECONDS = 5.0
_MAX_REFUSALS = 5


class SlurmWait:
    """The tasks of one run: those that are submitted, and those of earlier commands that are still there.

    Args:
        plan: of the run.
        submit: hands clips over.
        poll_seconds: between two looks at squeue.
    """

    def __init__(self, plan: Plan, submit: Submit, poll_seconds: float) -> None:
        self._plan = plan
        self._submit = submit
        self._poll_seconds = poll_seconds
        self._tasks: dict[str, tuple[str, ...]] = {}
        self._submissions: dict[str, Submission] = {}
        self._is_all_ours = True
        self._tail = LedgerTail(plan.paths)
        self._waited_for: set[str] = set()

    def begin(self, todo: Sequence[ClipTask]) -> None:
        """Submit what no living task has in hand already.

        Raises:
            ConfigError: SLURM refused, or does not answer; nothing was started.
        """
        self._tail.new_events()  # what was before is known from the disk
        earlier = {task: each for each in read_submissions(self._plan.paths) for task in each.tasks}
        states = task_states(earlier)
        if states is None:
            raise ConfigError("squeue does not answer, and tasks of an earlier command may still be there; try again")
        wanted = {each.clip.clip_id for each in todo}
        for task, submission in earlier.items():
            if states.get(task, GONE) not in ENDED and wanted & set(submission.tasks[task]):
                self._follow(submission, [task])
        in_hand = self._clip_ids()
        left = [each for each in todo if each.clip.clip_id not in in_hand]
        if in_hand:
            self._is_all_ours = False
            print(f"{len(wanted & in_hand)} clips are in the hands of tasks submitted before")
        if left:
            self._hand_over(left)

    def __call__(self) -> None:
        """Wait until every clip is done or has failed.

        Raises:
            WriteError: the run folder cannot be written.
            KeyboardInterrupt: the user does not want to wait; the tasks go on.
        """
        try:
            with Display(len(self._waited_for)) as display:
                num_lost = 0
                while True:
                    states = self._watch(display)
                    again = self._reconcile(states, display, is_last=num_lost >= REPEATS[LOST])
                    if not again:
                        break
                    num_lost += bool(states)  # else SLURM has taken only some of the tasks
                    self._tasks, self._is_all_ours = {}, True
                    if not self._hand_over_again(again):
                        break
        except KeyboardInterrupt:
            root = shlex.quote(str(self._plan.paths.root))
            print(
                f"\nthe tasks go on without this command: python -m aot.status {root}; python -m aot.cancel {root}",
                file=sys.stderr,
            )
            raise
        self._sweep_up()

    def _hand_over(self, todo: Sequence[ClipTask]) -> None:
        submission = self._submit(self._plan, todo)
        self._follow(submission, list(submission.tasks))
        self._waited_for.update(each.clip.clip_id for each in todo)
        if sum(map(len, submission.tasks.values())) < len(todo):
            self._is_all_ours = False
        print(f"submitted {len(submission.tasks)} tasks as {', '.join(submission.jobs)}; logs in {submission.folder}")

    def _hand_over_again(self, todo: Sequence[ClipTask]) -> bool:
        """Submit what came back; False where SLURM goes on refusing, which it does for a while when it restarts."""
        for number in range(_MAX_REFUSALS):
            if number:
                print(f"it is asked again in {self._poll_seconds:g} s", file=sys.stderr)
                time.sleep(self._poll_seconds)
            try:
                self._hand_over(todo)
                return True
            except ConfigError as refused:
                print(refused, file=sys.stderr)
        print(f"{len(todo)} clips are left; the same command takes them again", file=sys.stderr)
        return False

    def _follow(self, submission: Submission, tasks: Sequence[str]) -> None:
        for task in tasks:
            self._tasks[task] = submission.tasks[task]
            self._waited_for.update(submission.tasks[task])
            self._submissions[task] = submission

    def _clip_ids(self) -> set[str]:
        return {clip_id for clip_ids in self._tasks.values() for clip_id in clip_ids}

    def _sweep_up(self) -> None:
        """Delete what killed workers left half-written; it will not be needed, even where a twin still writes at it."""
        last_clip = {
            (event["host"], event["pid"]): event["clip_id"] for event in read_events(self._plan.paths, ["started"])
        }
        idle = {worker for worker, clip_id in last_clip.items() if clip_id in self._waited_for}
        remove_parts_of(self._plan.paths.root, idle)

    def _watch(self, display: Display) -> dict[str, str]:
        """Show what happens until every clip has ended or every task is gone; the tasks' states in the latter case."""
        open_clips = self._clip_ids()
        next_look = time.monotonic() + self._poll_seconds
        has_seen_end = False
        while True:
            for event in self._tail.new_events():
                if event.get("clip_id") in open_clips:
                    display.hear(event)
                    if event["event"] == "ended":
                        open_clips.discard(event["clip_id"])
            if not open_clips:
                return {}
            if time.monotonic() >= next_look:
                states = task_states(self._tasks)
                is_end = states is not None and ENDED.issuperset(states.values())
                if is_end and has_seen_end:
                    return states or {}
                has_seen_end = is_end
                next_look = time.monotonic() + (
                    min(_CONFIRM_SECONDS, self._poll_seconds) if is_end else self._poll_seconds
                )
            time.sleep(_LEDGER_SECONDS)

    def _reconcile(self, states: Mapping[str, str], display: Display, *, is_last: bool) -> list[ClipTask]:
        """Count what died with its task, and record what does not come back; returns what is to be submitted again."""
        if not states and self._is_all_ours:
            return []
        states = {**states, **last_states(task for task, state in states.items() if state == GONE)}
        cancelled = self._count_open_attempts(states)
        task_of = {clip_id: task for task, clip_ids in self._tasks.items() for clip_id in clip_ids}
        config = self._plan.config
        rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
        again = []
        for each in self._plan.work():
            if each.clip.clip_id not in self._waited_for or each.work not in (Work.ALL, Work.OVERLAY):
                continue
            task = task_of.get(each.clip.clip_id)
            if task is None:  # SLURM would not take so many at once
                again.append(each)
            elif task in cancelled:
                self._fail(each, task, display, CANCELLED, f"its task {task} was cancelled before the clip was done")
            elif next_rung(rungs, each.attempts) is None:
                self._fail(each, task, display)
            elif is_last:
                ended = f"its task {task} ended as {states.get(task, GONE)} before the clip was done"
                self._fail(each, task, display, LOST, f"{ended}, and so did {REPEATS[LOST]} others before it")
            else:
                again.append(each)
        return again

    def _count_open_attempts(self, states: Mapping[str, str]) -> set[str]:
        """Note how the attempts ended that died with their tasks; returns the tasks that someone has cancelled."""
        paths = self._plan.paths
        contents = {clip_id: content.digest for clip_id, content in self._plan.contents.items()}
        history = read_history(paths, contents)
        # A pending task of an array that is cancelled alone is forgotten at once, by squeue and sacct alike.
        cancelled = {
            task
            for task, state in states.items()
            if state == STATE_CANCELLED or (state == GONE and task not in history.tasks)
        }
        close_cancelled(paths, history, cancelled)
        for begun in history.open:
            task = begun.get("task", "")
            if task in states and task not in cancelled:
                kind = OUT_OF_MEMORY if states[task] == STATE_OUT_OF_MEMORY else LOST
                error = f"its task {task} ended as {states[task]}"
                ledger = Ledger(paths.ledger(begun["worker"]), task=task)
                ledger.append("died", clip_id=begun["clip_id"], **{"class": kind, "error": error})
        return cancelled

    def _fail(
        self, todo: ClipTask, task: str, display: Display, kind: str | None = None, message: str | None = None
    ) -> None:
        paths = self._plan.paths
        record_failure(
            todo,
            todo.attempts,
            paths.clip(todo.clip.clip_id),
            Ledger(paths.ledger(f"{host()}-{os.getpid()}"), on_event=display.hear),
            frame_interval=self._plan.config.frame_interval,
            log=self._submissions[task].log(task),
            kind=kind,
            message=message,
        )
