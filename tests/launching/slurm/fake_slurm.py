"""SLURM and a clock in memory: tasks have the states that a test gives them, and time passes only while one waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aot.errors import ConfigError
from aot.launching.plan import Plan
from aot.launching.slurm.squeue import GONE
from aot.launching.slurm.submissions import LivingArray, Submission
from aot.retry import ladder, next_rung
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask
from tests.launching.in_memory import MemoryRun, record_done

# No test waits this often: a command that never ends must not hang the tests.
_MAX_SLEEPS = 3000


class FakeSlurm:
    """Stands in for `aot.launching.slurm.squeue`, for `time`, and for the submission of a launcher.

    Args:
        run: whose clips are submitted.
        clips_per_task: number of clips per task.

    Attributes:
        now: time in s.
        states: task → what squeue answers; GONE for all others.
        accounting: task → what sacct answers.
        is_answering: whether squeue answers.
        refusals: messages with which the next submissions are refused.
        max_tasks: how many tasks the next submissions accept; the others accept all.
        on_submit: called with every submission.
        tasks: of every submission, the clip tasks as they were submitted.
        living: the arrays that were living at every submission.
    """

    def __init__(self, run: MemoryRun, clips_per_task: int = 1) -> None:
        self.now = 5000.0
        self.states: dict[str, str] = {}
        self.accounting: dict[str, str] = {}
        self.is_answering = True
        self.refusals: deque[str] = deque()
        self.max_tasks: deque[int] = deque()
        self.on_submit: Callable[[Submission], None] = lambda submission: None
        self.tasks: list[list[ClipTask]] = []
        self.living: list[list[LivingArray]] = []
        self.squeue_calls: list[float] = []
        self.sacct_calls: list[list[str]] = []
        self.submitted_at: list[float] = []
        self._run = run
        self._clips_per_task = clips_per_task
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._clip_tasks: dict[str, ClipTask] = {}
        self._num_sleeps = 0
        self._num_jobs = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self._num_sleeps += 1
        assert self._num_sleeps < _MAX_SLEEPS, "the command does not end"
        self.now += seconds
        due = [each for each in self._later if each[0] <= self.now]
        self._later = [each for each in self._later if each[0] > self.now]
        for _, act in due:
            act()

    def task_states(self, tasks: Iterable[str]) -> dict[str, str] | None:
        self.squeue_calls.append(self.now)
        return {task: self.states.get(task, GONE) for task in tasks} if self.is_answering else None

    def last_states(self, tasks: Iterable[str]) -> dict[str, str]:
        self.sacct_calls.append(sorted(tasks))
        return {task: self.accounting[task] for task in self.sacct_calls[-1] if task in self.accounting}

    def submit(
        self,
        plan: Plan,
        tasks: Sequence[ClipTask],
        living: Sequence[LivingArray] = (),
        show_life: Callable[[], None] = lambda: None,
    ) -> Submission:
        self.living.append(list(living))
        self.submitted_at.append(self.now)
        if self.refusals:
            raise ConfigError(self.refusals.popleft())
        self._num_jobs += 1
        shards = [tasks[start : start + self._clips_per_task] for start in range(0, len(tasks), self._clips_per_task)]
        accepted = shards[: self.max_tasks.popleft() if self.max_tasks else None]
        names = {f"{self._num_jobs}_{index}": shard for index, shard in enumerate(accepted)}
        submission = Submission(
            plan.paths.submissions / f"submission-{self._num_jobs}",
            {name: tuple(task.clip.clip_id for task in shard) for name, shard in names.items()},
        )
        submission.save()
        self.tasks.append(list(tasks))
        self._clip_tasks |= {task.clip.clip_id: task for task in tasks}
        self.states |= dict.fromkeys(submission.tasks, "RUNNING")
        self.on_submit(submission)
        return submission

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something when this time has passed."""
        self._later.append((self.now + seconds, act))

    def start(self, task: str, clip_id: str, **details: Any) -> None:
        """A worker of a task starts a clip."""
        clip_task, config = self._clip_tasks[clip_id], self._run.config()
        rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
        rung = next_rung(rungs, clip_task.attempts)
        assert rung is not None
        settings = {"rung": rung.number, "frame_interval": rung.frame_interval, "lean": rung.lean}
        content = clip_task.fingerprint.digest
        self.ledger(task).append("started", clip_id=clip_id, content=content, work="all", **settings, **details)

    def finish(self, task: str, clip_id: str) -> None:
        record_done(self._run.paths, self._clip_tasks[clip_id], self.ledger(task))

    def ledger(self, task: str) -> Ledger:
        return Ledger(self._run.paths, f"worker-{task}", scheduler_task=task)
