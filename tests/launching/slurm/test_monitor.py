"""Waiting for SLURM tasks, with a queue and a clock in memory.

tests/faults/test_slurm.py does the same on a development cluster, once per kind of fault.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aot.errors import ConfigError
from aot.launching.plan import Plan
from aot.launching.slurm.monitor import SlurmWait
from aot.launching.slurm.submissions import Submission
from aot.system.processes import host
from tests.launching.in_memory import MemoryRun
from tests.launching.slurm.fake_slurm import FakeSlurm

POLL_SECONDS = 30.0


class Waited(MemoryRun):
    """A run of four clips, each of them a SLURM task."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"a": 10, "b": 20, "c": 30, "d": 40})
        self.slurm = FakeSlurm(self)

    def waiting(self, plan: Plan | None = None) -> SlurmWait:
        plan = plan or self.plan()
        plan.write(with_sizes=False)
        return SlurmWait(plan, self.slurm.submit, POLL_SECONDS, queue=self.slurm, clock=self.slurm)

    def wait(self) -> None:
        plan = self.plan()
        waiting = self.waiting(plan)
        waiting.begin([task for task in plan.tasks() if task.is_pending])
        waiting()

    def submitted(self) -> list[list[str]]:
        return [[task.clip.clip_id for task in tasks] for tasks in self.slurm.tasks]

    def finish_all(self, submission: Submission, *, seconds: float = 2.0) -> None:
        """Let every clip of a submission be done after a time."""
        for task, clip_ids in submission.tasks.items():
            for clip_id in clip_ids:
                self.slurm.later(seconds, lambda task=task, clip_id=clip_id: self.complete(task, clip_id))

    def complete(self, task: str, clip_id: str) -> None:
        self.slurm.start(task, clip_id)
        self.slurm.finish(task, clip_id)
        self.slurm.states[task] = "COMPLETED"

    def except_first(self, **first: Callable[[str], None]) -> None:
        """Let all clips be done; in the first submission, call these functions (clip id → function of task) instead."""

        def submit(submission: Submission) -> None:
            if len(self.slurm.tasks) > 1:
                self.finish_all(submission)
                return
            for task, (clip_id,) in submission.tasks.items():
                act = first.get(clip_id, lambda task, clip_id=clip_id: self.complete(task, clip_id))
                self.slurm.later(2.0, lambda act=act, task=task: act(task))

        self.slurm.on_submit = submit

    def die(self, state: str, *, clip_id: str = "d", is_started: bool = True) -> Callable[[str], None]:
        """End a task, in the middle of its clip or before it has started one."""

        def act(task: str) -> None:
            if is_started:
                self.slurm.start(task, clip_id)
            self.slurm.states[task] = state

        return act


@pytest.fixture
def run(tmp_path: Path) -> Waited:
    return Waited(tmp_path)


def test_clips_are_submitted_and_waited_for_by_their_ledgers(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    run.slurm.on_submit = lambda submission: run.finish_all(submission, seconds=20)
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"]]
    assert run.works() == dict.fromkeys("abcd", "nothing")
    shown = capsys.readouterr()
    assert shown.out.startswith("submitted 4 tasks as 1; logs in ")
    assert [line.split(":")[0] for line in shown.err.splitlines()] == ["a", "b", "c", "d"]
    assert run.slurm.squeue_calls == [5000.0], "only to find tasks of earlier commands"
    assert run.slurm.sacct_calls == []


def test_events_before_the_submission_do_not_end_the_wait(run: Waited) -> None:
    run.finish("d")
    run.write_source("d", b"another video")
    run.slurm.on_submit = lambda submission: [
        run.slurm.later(50.0 if clip_id == "d" else 2.0, lambda task=task, clip_id=clip_id: run.complete(task, clip_id))
        for task, (clip_id,) in submission.tasks.items()
    ]
    run.wait()
    assert run.works() == dict.fromkeys("abcd", "nothing")


def test_squeue_is_called_rarely(run: Waited) -> None:
    run.slurm.on_submit = lambda submission: run.finish_all(submission, seconds=100)
    run.wait()
    assert run.slurm.squeue_calls == [5000.0, 5030.0, 5060.0, 5090.0]


def test_squeue_that_does_not_answer_is_called_again(run: Waited) -> None:
    def submit(submission: Submission) -> None:
        run.finish_all(submission, seconds=100)
        run.slurm.is_answering = False

    run.slurm.on_submit = submit
    run.wait()
    assert len(run.slurm.squeue_calls) == 4
    assert run.submitted() == [["a", "b", "c", "d"]]


def test_task_that_is_requeued_looks_ended_for_a_moment(run: Waited) -> None:
    def submit(submission: Submission) -> None:
        run.finish_all(submission, seconds=100)
        run.slurm.later(20, lambda: run.slurm.states.update(dict.fromkeys(submission.tasks, "NODE_FAIL")))
        run.slurm.later(31, lambda: run.slurm.states.update(dict.fromkeys(submission.tasks, "PENDING")))

    run.slurm.on_submit = submit
    run.wait()
    assert run.slurm.squeue_calls == [5000.0, 5030.0, 5035.0, 5065.0, 5095.0], "an end is confirmed after 5 s"
    assert run.submitted() == [["a", "b", "c", "d"]]


@pytest.mark.parametrize("state", ["FAILED", "NODE_FAIL", "COMPLETED"])
def test_clip_of_a_task_that_died_is_submitted_again_and_its_attempt_counts(run: Waited, state: str) -> None:
    run.except_first(d=run.die(state))
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"], ["d"]]
    (task,) = run.slurm.tasks[1]
    assert [(each.rung.number, each.kind, each.error) for each in task.attempts] == [
        (1, "lost", f"its task 1_3 ended as {state}")
    ]
    (died,) = run.events("died")
    assert (died["worker"], died["task"], died["clip_id"]) == ("worker-1_3", "1_3", "d")
    assert run.works()["d"] == "nothing"


def test_reasons_are_printed(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    """Why a clip was interrupted, that SLURM requeues a task, and why clips are submitted again."""

    def preempt(task: str) -> None:
        run.slurm.start(task, "c")
        run.slurm.ledger(task).append("interrupted", clip_id="c", reason="its task was preempted", by_scheduler=True)

    run.except_first(a=lambda task: None, c=preempt, d=run.die("NODE_FAIL"))
    for seconds, state in ((35, "PENDING"), (65, "RUNNING"), (95, "PENDING"), (125, "RUNNING")):
        run.slurm.later(seconds, lambda state=state: run.slurm.states.update({"1_0": state, "1_2": state}))
    run.slurm.later(130, lambda: [run.slurm.states.pop("1_0"), run.slurm.states.update({"1_2": "FAILED"})])
    run.wait()
    shown = capsys.readouterr()
    assert "interrupted: c: its task was preempted" in shown.err.splitlines()
    assert shown.err.splitlines().count("requeued by SLURM, to run again: 2 tasks (1_0, 1_2)") == 2
    out = [line.partition("; logs in")[0] for line in shown.out.splitlines()]
    # A task that is GONE and had never started was cancelled.
    assert out == [
        "submitted 4 tasks as 1",
        "to be submitted again: 1 clip (c): their tasks ended as FAILED before the clips were done",
        "to be submitted again: 1 clip (d): their tasks ended as NODE_FAIL before the clips were done",
        "submitted 2 tasks as 2",
    ]


def test_rate_counts_from_the_submission(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    """The runs of a sweep are submitted together and waited for one after another: clips may have ended by then."""
    run.slurm.on_submit = lambda submission: [
        run.complete(task, clip_id) for task, (clip_id,) in submission.tasks.items()
    ]
    waiting = run.waiting()
    waiting.begin(run.tasks())
    run.slurm.now += 100.0
    waiting()
    rates = [float(line.split(" · ")[1].split()[0]) for line in capsys.readouterr().err.splitlines()]
    assert rates[-1] == pytest.approx(4 * 8 / 100, abs=0.1)


def test_time_limits_of_tasks_that_slurm_does_not_requeue_do_not_fail_their_clips(run: Waited) -> None:
    """The task ends by itself before its time limit, so that SLURM calls it FAILED."""
    run.slurm = FakeSlurm(run, clips_per_task=4)

    def submit(submission: Submission) -> None:
        (task,) = submission.tasks

        def stop() -> None:
            run.slurm.start(task, "c")
            run.slurm.ledger(task).append("interrupted", clip_id="c", reason="", is_counted=False, by_scheduler=True)
            run.slurm.states[task] = "FAILED"

        if len(run.slurm.tasks) <= 10:
            run.slurm.later(2.0, stop)
        else:
            run.finish_all(submission)

    run.slurm.on_submit = submit
    run.wait()
    assert len(run.submitted()) == 11
    assert run.works() == dict.fromkeys("abcd", "nothing")


@pytest.mark.parametrize(
    ("state", "has_computed_another", "expected"),
    [("TIMEOUT", False, ["lost"]), ("TIMEOUT", True, []), ("PREEMPTED", False, []), ("PREEMPTED", True, [])],
)
def test_preemption_does_not_count_and_a_time_limit_only_for_a_clip_that_had_all_the_time(
    run: Waited, state: str, has_computed_another: bool, expected: list[str]
) -> None:
    run.slurm = FakeSlurm(run, clips_per_task=4)

    def submit(submission: Submission) -> None:
        (task,) = submission.tasks

        def die() -> None:
            for clip_id in "abc" if has_computed_another else "":
                run.complete(task, clip_id)
            run.slurm.start(task, "d")
            run.slurm.states[task] = state

        if len(run.slurm.tasks) == 1:
            run.slurm.later(2.0, die)
        else:
            run.finish_all(submission)

    run.slurm.on_submit = submit
    run.wait()
    (interrupted,) = run.events("interrupted")
    assert (interrupted["clip_id"], interrupted["reason"]) == ("d", f"its task 1_0 ended as {state}")
    again = {task.clip.clip_id: [attempt.kind for attempt in task.attempts] for task in run.slurm.tasks[1]}
    assert again["d"] == expected
    assert run.works() == dict.fromkeys("abcd", "nothing")


@pytest.mark.parametrize("state", ["PREEMPTED", "TIMEOUT"])
@pytest.mark.parametrize("is_started", [True, False])
def test_clip_that_is_preempted_ten_times_is_done(run: Waited, state: str, is_started: bool) -> None:
    """A time limit with the next clip of a task is no other: the clips before it are done."""
    run.slurm = FakeSlurm(run, clips_per_task=4)

    def submit(submission: Submission) -> None:
        (task,) = submission.tasks

        def interrupt() -> None:
            if is_started:
                run.slurm.start(task, "c")
                run.slurm.ledger(task).append("interrupted", clip_id="c", reason="", is_counted=False)
                run.slurm.start(task, "d")
            run.slurm.states[task] = state

        if len(run.slurm.tasks) <= 10:
            run.slurm.later(2.0, interrupt)
        else:
            run.finish_all(submission)

    run.slurm.on_submit = submit
    run.wait()
    if state == "TIMEOUT" and not is_started:
        assert len(run.submitted()) == 4, "a task that does not even start a clip within its time is no use"
        assert run.works() == dict.fromkeys("abcd", "failed before")
        return
    assert len(run.submitted()) == 11
    assert run.works() == dict.fromkeys("abcd", "nothing")
    assert run.events("died") == []


def test_task_that_was_terminated_before_it_was_killed_for_its_memory(run: Waited) -> None:
    def die(task: str) -> None:
        run.slurm.start(task, "d")
        run.slurm.ledger(task).append("interrupted", clip_id="d", reason="terminated", is_counted=False)
        run.slurm.states[task] = "OUT_OF_MEMORY"

    run.except_first(d=die)
    run.wait()
    (task,) = run.slurm.tasks[1]
    assert [(each.rung.number, each.kind) for each in task.attempts] == [(1, "oom")]


def test_only_clips_of_this_command_are_submitted_again(run: Waited) -> None:
    waiting = run.waiting()
    run.except_first(b=run.die("FAILED", clip_id="b"))
    waiting.begin([task for task in run.tasks() if task.clip.clip_id in "ab"])  # as for a shard
    waiting()
    assert run.submitted() == [["a", "b"], ["b"]]


def test_task_out_of_memory_moves_its_clip_up_the_ladder(run: Waited) -> None:
    run.except_first(d=run.die("OUT_OF_MEMORY"))
    run.wait()
    (task,) = run.slurm.tasks[1]
    assert [(each.rung.number, each.kind) for each in task.attempts] == [(1, "oom")]
    assert run.events("started")[-1]["rung"] == 2


def test_task_that_dies_before_it_starts_a_clip_costs_no_attempt(run: Waited) -> None:
    run.except_first(d=run.die("NODE_FAIL", is_started=False))
    run.wait()
    assert run.submitted()[1:] == [["d"]]
    assert run.slurm.tasks[1][0].attempts == ()


@pytest.mark.parametrize("is_started", [True, False])
def test_clip_that_is_lost_again_and_again_fails(
    run: Waited, is_started: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def submit(submission: Submission) -> None:
        for task, (clip_id,) in submission.tasks.items():
            act = run.die("NODE_FAIL", is_started=is_started)
            if clip_id == "d":
                run.slurm.later(2.0, lambda act=act, task=task: act(task))
            else:
                run.slurm.later(2.0, lambda task=task, clip_id=clip_id: run.complete(task, clip_id))

    run.slurm.on_submit = submit
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"], ["d"], ["d"], ["d"]]
    failure = run.failure("d")
    assert failure["class"] == "lost"
    assert run.failed_attempts("d") == ([(1, "lost")] * 4 if is_started else [])
    ended = "its task 4_0 ended as NODE_FAIL"
    after = "" if is_started else " before the clip was done, as did 3 other tasks before it"
    assert failure["message"] == ended + after
    assert failure["log"] == str(run.paths.submissions / "submission-4" / "4_0_0_log.out")
    assert run.events("ended")[-1]["worker"] == f"{host()}-{os.getpid()}"
    assert f"d: failed · {ended}{after}" in capsys.readouterr().err
    assert run.works() == dict.fromkeys("abc", "nothing") | {"d": "failed before"}


def test_attempts_that_were_used_up_before_the_task_died_fail_the_clip(run: Waited) -> None:
    def crash_twice(task: str) -> None:
        for _ in range(2):
            run.slurm.start(task, "d")
            run.slurm.ledger(task).append("died", clip_id="d", **{"class": "crash", "error": "killed by SIGSEGV"})
        run.slurm.states[task] = "FAILED"

    run.except_first(d=crash_twice)
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"]]
    assert run.failed_attempts("d") == [(1, "crash"), (1, "crash")]
    assert run.failure("d")["message"] == "killed by SIGSEGV"


@pytest.mark.parametrize(
    ("state", "accounting", "is_started"),
    [("CANCELLED", None, True), ("CANCELLED", None, False), ("GONE", "CANCELLED", True), ("GONE", None, False)],
)
def test_cancelled_task_is_not_submitted_again(
    run: Waited, state: str, accounting: str | None, is_started: bool
) -> None:
    run.slurm.accounting |= {} if accounting is None else {"1_3": accounting}
    run.except_first(d=run.die(state, is_started=is_started))
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"]]
    failure = run.failure("d")
    assert (failure["class"], failure["attempts"]) == ("cancelled", [])
    assert failure["message"] == "its task 1_3 was cancelled before the clip was done"
    assert failure["log"] == str(run.paths.submissions / "submission-1" / "1_3_0_log.out")
    interrupted = run.events("interrupted")
    assert [(event["clip_id"], event["task"], event["is_counted"]) for event in interrupted] == (
        [("d", "1_3", False)] if is_started else []
    )
    assert run.slurm.sacct_calls == [["1_3"] if state == "GONE" else []], "only of tasks that squeue does not know"
    assert run.works()["d"] == "all", "the same command processes it again"


@pytest.mark.parametrize(("accounting", "ended"), [(None, "GONE"), ("TIMEOUT", "TIMEOUT")])
def test_task_that_started_and_that_squeue_does_not_know_any_more_was_lost(
    run: Waited, accounting: str | None, ended: str
) -> None:
    run.slurm.accounting |= {} if accounting is None else {"1_3": accounting}
    run.except_first(d=run.die("GONE"))
    run.wait()
    assert run.submitted()[1:] == [["d"]]
    assert run.slurm.tasks[1][0].attempts[0].error == f"its task 1_3 ended as {ended}"


def test_cancelled_and_lost_tasks_of_one_array(run: Waited) -> None:
    run.except_first(c=run.die("CANCELLED", clip_id="c"), d=run.die("FAILED"))
    run.wait()
    assert run.submitted()[1:] == [["d"]]
    assert run.works() == {"a": "nothing", "b": "nothing", "c": "all", "d": "nothing"}
    assert [event["clip_id"] for event in run.events("died")] == ["d"]


def test_clips_that_slurm_did_not_accept_follow_and_do_not_count_as_lost(run: Waited) -> None:
    run.slurm.max_tasks.extend([1, 1, 1])
    run.slurm.on_submit = run.finish_all
    run.wait()
    assert run.submitted() == [["a", "b", "c", "d"], ["b", "c", "d"], ["c", "d"], ["d"]]
    assert run.works() == dict.fromkeys("abcd", "nothing")
    assert not any(task.attempts for tasks in run.slurm.tasks for task in tasks)
    assert len(run.slurm.sacct_calls) == 3, "the tasks of the last submission have all clips, so the ledgers suffice"


def test_losses_are_not_counted_while_slurm_accepts_only_some(run: Waited) -> None:
    run.slurm.max_tasks.extend([1, 1, 1])
    deaths = iter(range(3))

    def submit(submission: Submission) -> None:
        for task, (clip_id,) in submission.tasks.items():
            if clip_id == "d" and next(deaths, None) is not None:
                run.slurm.later(2.0, lambda task=task: run.die("NODE_FAIL", is_started=False)(task))
            else:
                run.slurm.later(2.0, lambda task=task, clip_id=clip_id: run.complete(task, clip_id))

    run.slurm.on_submit = submit
    run.wait()
    assert run.works()["d"] == "nothing", "three losses are allowed"


def test_refused_resubmission_is_repeated(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    def die(task: str) -> None:
        run.die("FAILED")(task)
        run.slurm.refusals.extend(["SLURM refused the tasks: busy"] * 4)

    run.except_first(d=die)
    run.wait()
    assert run.submitted()[1:] == [["d"]]
    first = run.slurm.submitted_at[1]
    assert run.slurm.submitted_at[1:] == [first + number * POLL_SECONDS for number in range(5)]
    lines = capsys.readouterr().err.splitlines()
    assert lines.count("SLURM refused the tasks: busy") == lines.count("trying again in 30 s") == 4


def test_command_gives_up_when_slurm_keeps_refusing(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    def die(task: str) -> None:
        run.die("FAILED")(task)
        run.slurm.refusals.extend(["busy"] * 9)

    run.except_first(d=die)
    run.wait()
    assert len(run.slurm.submitted_at) == 1 + 5
    assert "1 clip left; run the same command again to process them" in capsys.readouterr().err
    assert run.works()["d"] == "all"


def test_only_one_command_submits_at_a_time(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    def submit(submission: Submission) -> None:
        second = run.waiting()
        with pytest.raises(
            ConfigError, match=r"has been submitting the tasks of this run for 15 min; run the same .* later"
        ):
            second.begin(run.tasks())

    run.slurm.on_submit = submit
    run.waiting().begin(run.tasks())
    shown = capsys.readouterr().err
    assert shown.startswith("waiting until the command of ")
    assert shown.count("waiting until") == 1
    assert run.submitted() == [["a", "b", "c", "d"]]
    run.waiting().begin(run.tasks())
    assert run.submitted() == [["a", "b", "c", "d"]], "the second command sees the tasks of the first one"
    assert not run.paths.submit_lock.exists()


def test_clips_of_a_dead_task_that_another_command_has_submitted_again_are_joined(run: Waited) -> None:
    first, second = run.waiting(), run.waiting()
    first.begin(run.tasks())
    second.begin(run.tasks())
    for number, clip_id in enumerate("abc"):
        run.slurm.later(1, lambda task=f"1_{number}", clip_id=clip_id: run.complete(task, clip_id))
    run.slurm.later(2, lambda: run.die("FAILED")("1_3"))
    run.slurm.on_submit = lambda submission: None
    run.slurm.later(500, lambda: run.complete("2_0", "d"))

    def submit(submission: Submission) -> None:
        """While the first command waits for its second submission, the second one notices the same end."""
        run.slurm.on_submit = lambda submission: None
        run.slurm.later(5, second)

    run.slurm.on_submit = submit
    first()
    assert run.submitted() == [["a", "b", "c", "d"], ["d"]]
    assert run.works() == dict.fromkeys("abcd", "nothing")


def test_refused_first_submission_starts_nothing(run: Waited) -> None:
    run.slurm.refusals.append("SLURM refused the tasks: no such partition")
    with pytest.raises(ConfigError, match="no such partition"):
        run.waiting().begin(run.tasks())


def test_living_tasks_of_an_earlier_command_are_joined(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    earlier = run.waiting()
    earlier.begin([task for task in run.tasks() if task.clip.clip_id in "ab"])
    assert run.submitted() == [["a", "b"]]
    capsys.readouterr()
    run.slurm.on_submit = run.finish_all
    run.slurm.later(10, lambda: run.complete("1_0", "a"))
    run.slurm.later(11, lambda: run.complete("1_1", "b"))
    run.wait()
    assert run.submitted() == [["a", "b"], ["c", "d"]]
    assert capsys.readouterr().out.startswith("2 clips in tasks that were submitted before\nsubmitted 2 tasks as 2; ")
    assert sorted(event["clip_id"] for event in run.events("started")) == ["a", "b", "c", "d"]


def test_clip_that_changed_after_an_earlier_command_submitted_it_is_submitted_again(run: Waited) -> None:
    run.waiting().begin(run.tasks())
    run.write_source("d", b"another video")
    for number, clip_id in enumerate("abcd"):
        run.slurm.later(10, lambda task=f"1_{number}", clip_id=clip_id: run.complete(task, clip_id))
    run.slurm.on_submit = run.finish_all
    run.wait()
    assert run.submitted()[1:] == [["d"]]
    assert run.works() == dict.fromkeys("abcd", "nothing")


def test_ended_tasks_of_an_earlier_command_are_not_joined(run: Waited) -> None:
    run.waiting().begin(run.tasks())
    run.slurm.states |= {"1_0": "FAILED", "1_1": "CANCELLED", "1_2": "GONE"}
    run.slurm.on_submit = run.finish_all
    run.slurm.later(10, lambda: run.complete("1_3", "d"))
    run.wait()
    assert run.submitted()[1:] == [["a", "b", "c"]]


def test_tasks_of_clips_that_are_not_wanted_are_not_joined(run: Waited) -> None:
    run.waiting().begin(run.tasks())
    run.complete("1_3", "d")
    run.slurm.states["1_3"] = "RUNNING"  # it has not ended yet
    for number, clip_id in enumerate("abc"):
        run.slurm.later(10, lambda task=f"1_{number}", clip_id=clip_id: run.complete(task, clip_id))
    run.wait()
    assert run.submitted()[1:] == []


def test_task_without_work_left_ends_without_an_event(run: Waited) -> None:
    """Clips that end after the plan was made are submitted again: their tasks find them done and record nothing."""
    run.waiting().begin(run.tasks())
    plan = run.plan()
    tasks = plan.tasks()
    for number, clip_id in enumerate("abc"):
        run.complete(f"1_{number}", clip_id)
    waiting = run.waiting(plan)
    waiting.begin(tasks)
    assert run.submitted()[1:] == [["a", "b", "c"]]
    run.slurm.states |= dict.fromkeys(["2_0", "2_1", "2_2"], "COMPLETED")
    run.slurm.later(10, lambda: run.complete("1_3", "d"))
    waiting()
    assert len(run.slurm.tasks) == 2
    assert run.works() == dict.fromkeys("abcd", "nothing")


def test_unanswered_squeue_submits_nothing(run: Waited) -> None:
    run.slurm.is_answering = False
    with pytest.raises(ConfigError, match="squeue does not answer, and tasks of an earlier command may still run"):
        run.waiting().begin(run.tasks())
    assert run.submitted() == []


def test_joined_task_that_dies_is_submitted_again(run: Waited) -> None:
    run.waiting().begin(run.tasks())
    for number, clip_id in enumerate("abc"):
        run.slurm.later(10, lambda task=f"1_{number}", clip_id=clip_id: run.complete(task, clip_id))
    run.slurm.later(10, lambda: run.die("FAILED")("1_3"))
    run.slurm.on_submit = run.finish_all
    run.wait()
    assert run.submitted()[1:] == [["d"]]


def test_ctrl_c_does_not_end_the_tasks(
    run: Waited, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    waiting = run.waiting()
    waiting.begin(run.tasks())
    monkeypatch.setattr(run.slurm, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        waiting()
    root = run.paths.root
    expected = f"the tasks continue without this command: python -m aot.status {root}; python -m aot.cancel {root}"
    assert expected in capsys.readouterr().err.splitlines()


def test_part_files_of_dead_workers_are_removed_at_the_end_and_those_of_twins_are_kept(run: Waited) -> None:
    """SLURM runs a task a second time while the first one still lives on a node that it has lost."""
    parts = {pid: run.paths.results / f".node-{pid}-abc.h5.part" for pid in (101, 102, 103)}

    def die(task: str) -> None:
        for path in parts.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        run.slurm.start(task, "d", host="node", pid=101)
        run.slurm.states[task] = "FAILED"

    def live(number: int = 1) -> None:
        os.utime(run.paths.ledger("worker-9_0"), (number, number))
        run.slurm.later(15, lambda: live(number + 1))

    run.slurm.ledger("9_0").append("started", clip_id="d", host="node", pid=102)
    live()
    run.except_first(d=die)
    finish_others = run.slurm.on_submit

    def submit(submission: Submission) -> None:
        if len(run.slurm.tasks) == 1:
            finish_others(submission)
        else:
            run.finish_all(submission, seconds=100)

    run.slurm.on_submit = submit
    run.wait()
    assert {pid for pid, path in parts.items() if path.exists()} == {102, 103}, "the dead worker's is removed"


def test_events_of_other_clips_are_not_shown(run: Waited, capsys: pytest.CaptureFixture[str]) -> None:
    run.slurm.on_submit = run.finish_all
    run.slurm.later(1, lambda: run.slurm.ledger("9_0").append("ended", clip_id="other", state="done"))
    run.wait()
    assert "other" not in capsys.readouterr().err
