"""The supervisor with processes and a clock in memory: every way in which a worker process can end.

tests/faults/test_local.py does the same to real processes, once per kind of fault.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aot.errors import AotError, WriteError
from aot.retry import Rung
from aot.runs.ledger import SILENT_SECONDS, Ledger
from aot.runs.task import ClipTask
from aot.system.processes import host
from tests.launching.fake_processes import FakeProcess, die, fail, finish, hang
from tests.launching.in_memory import record_done
from tests.launching.supervised import CLIPS, Supervised


@pytest.fixture
def run(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)


def test_one_process_takes_all_clips_in_order_and_was_asked_to_end(run: Supervised) -> None:
    run.run(memory_gb=3.5)
    (process,) = run.processes
    assert process.clip_ids == ["a", "b", "c"]
    assert process.was_asked_to_end
    assert process.end_timeouts, "its end is waited for"
    assert process.signals == []
    assert run.works() == dict.fromkeys(CLIPS, "nothing")
    assert process.start.run.paths.root == run.paths.root
    assert process.start.worker == f"7_1.{host()}-{os.getpid()}-0"
    assert (process.start.scheduler_task, process.start.memory_gb) == ("7_1", 3.5)
    assert process.slot.gpu == "0"


def test_no_clip_starts_no_process(run: Supervised) -> None:
    run.supervisor().run([])
    assert run.processes == []


@pytest.mark.parametrize(("slots", "expected"), [(2, 2), (3, 3), (8, 3)])
def test_no_more_processes_than_slots_or_clips(run: Supervised, slots: int, expected: int) -> None:
    run.run(slots=slots)
    assert max(run.machine.num_running) == len(run.processes) == expected
    assert sorted(clip_id for process in run.processes for clip_id in process.clip_ids) == ["a", "b", "c"]
    assert len({process.start.worker for process in run.processes}) == expected
    assert [process.slot.number for process in run.processes] == list(range(expected))


def test_events_and_progress_are_displayed(run: Supervised) -> None:
    def report(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.report("segment", 0.25)
        process.finish(task)
        process.ready()

    run.machine.actions["b"] = [report]
    run.run()
    assert run.display.progress == [("b", "segment", 0.25)]
    for clip_id in "abc":
        kinds = [event["event"] for event in run.display.events if event["clip_id"] == clip_id]
        assert kinds == ["started", "done", "started", "scored", "ended"]


def test_progress_after_the_end_of_a_clip_is_not_displayed(run: Supervised) -> None:
    def report_late(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.finish(task)
        process.report("write")
        process.ready()

    run.machine.actions["b"] = [report_late]
    run.run()
    assert run.display.progress == []
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


@pytest.mark.parametrize(
    ("code", "log", "num_kills", "expected"),
    [
        (-9, "", 0, ("lost", "its process was killed by SIGKILL, from outside")),
        (-9, "", 1, ("oom", "the kernel killed its process because memory ran out")),
        (-9, "std::bad_alloc", 0, ("oom", "an allocation failed, and its process was killed by SIGKILL")),
        (-6, "what(): std::bad_alloc\n", 0, ("oom", "an allocation failed, and its process was killed by SIGABRT")),
        (1, "MemoryError", 0, ("oom", "an allocation failed, and its process ended with exit code 1")),
        (1, "OSError: [Errno 12] Cannot allocate memory", 0, ("oom", None)),
        (1, "MemoryError" + 5000 * ".", 0, ("crash", "its process ended with exit code 1")),
        (-11, "", 1, ("crash", "its process was killed by SIGSEGV")),
        (70, "", 0, ("crash", "its process ended with exit code 70")),
        (0, "", 0, ("crash", "its process ended with exit code 0")),
        (-64, "", 0, ("crash", None)),
        (-99, "", 0, ("crash", "its process was killed by signal 99")),
    ],
)
def test_error_class_of_a_dead_process(
    run: Supervised,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    log: str,
    num_kills: int,
    expected: tuple[str, str | None],
) -> None:
    kills = [5]

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = end  # after the "started" event has been received

    def end(process: FakeProcess) -> None:
        process.on_wait = lambda process: None
        kills[0] += num_kills
        process.write_log(log)
        process.exit(code)

    monkeypatch.setattr("aot.launching.supervised_child.num_oom_kills", lambda: kills[0])
    run.machine.actions["b"] = [act]
    run.run()
    (died,) = run.events("died")
    assert (died["clip_id"], died["class"]) == ("b", expected[0])
    assert expected[1] in (died["error"], None)
    assert (died["worker"], died["task"]) == (run.processes[0].start.worker, "7_1")
    assert [event["clip_id"] for event in run.display.events if event["event"] == "died"] == ["b"]
    assert run.works()["b"] == "nothing", "it is retried"


def test_log_and_kills_before_the_attempt_are_not_its_cause(run: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    kills = [0]

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.write_log("MemoryError")
        kills[0] += 1
        process.begin(task)
        process.on_wait = lambda process: process.exit(-9)

    monkeypatch.setattr("aot.launching.supervised_child.num_oom_kills", lambda: kills[0])
    run.machine.actions["a"] = [act]
    run.run()
    assert run.deaths() == [("a", "lost")]


def test_log_of_an_earlier_process_of_the_slot_is_not_the_cause(run: Supervised) -> None:
    run.machine.actions["a"] = [die(1, log="MemoryError")]

    def die_before_start(process: FakeProcess, task: ClipTask) -> None:
        process.exit(1)

    run.machine.actions["a"] += [die_before_start]
    run.run()
    assert run.deaths() == [("a", "oom"), ("a", "crash")]


@pytest.mark.parametrize(
    ("actions", "attempts"),
    [
        ([die(-9)] * 4, [(1, "lost")] * 4),
        ([die(-11)] * 2, [(1, "crash")] * 2),
        ([die(1, "MemoryError")] * 4, [(1, "oom"), (2, "oom"), (3, "oom"), (4, "oom")]),
        ([hang] * 2, [(1, "stall")] * 2),
        ([die(-9), hang, die(-11), hang], [(1, "lost"), (1, "stall"), (1, "crash"), (1, "stall")]),
        ([die(1, "MemoryError"), hang, hang], [(1, "oom"), (2, "stall"), (2, "stall")]),
    ],
)
def test_clip_fails_when_its_attempts_are_used_up(
    run: Supervised, actions: list[Any], attempts: list[tuple[int, str]]
) -> None:
    run.machine.actions["b"] = [*actions]
    run.run()
    assert run.failed_attempts("b") == attempts
    failure = run.failure("b")
    assert failure["class"] == attempts[-1][1]
    assert failure["message"] == run.events("died")[-1]["error"]
    assert failure["log"] == str(run.paths.log(run.processes[0].start.worker))
    assert failure["frame_interval"] == {1: 1, 2: 1, 3: 2, 4: 4}[attempts[-1][0]]
    assert run.deaths() == [("b", kind) for _, kind in attempts]
    assert run.started().count("a") == run.started().count("c") == 1, "other clips are not repeated"
    (ended,) = [event for event in run.events("ended") if event["state"] == "failed"]
    assert (ended["clip_id"], ended["task"]) == ("b", "7_1")
    assert ended in run.display.events
    assert run.works() == {"a": "nothing", "b": "failed before", "c": "nothing"}


@pytest.mark.parametrize("action", [die(-9), die(-11), die(1, "MemoryError"), hang])
def test_clip_is_retried_by_a_new_process_before_the_other_clips(run: Supervised, action: Any) -> None:
    run.machine.actions["b"] = [action]
    run.run()
    assert [process.clip_ids for process in run.processes] == [["a", "b"], ["b", "c"]]
    assert [process.slot.number for process in run.processes] == [0, 0], "in the same slot"
    assert run.processes[0].start.worker == run.processes[1].start.worker, "a worker is a slot, not a process"


def test_attempts_of_a_clip_are_sent_with_it(run: Supervised) -> None:
    sent: list[ClipTask] = []

    def act(process: FakeProcess, task: ClipTask) -> None:
        sent.append(task)
        process.begin(task, *["oom"] * (len(sent) == 1))
        process.exit(-9)

    def end(process: FakeProcess, task: ClipTask) -> None:
        sent.append(task)
        finish(process, task)

    run.machine.actions["b"] = [act, act, end]
    run.run()
    assert [[(each.rung.number, each.kind) for each in task.attempts] for task in sent] == [
        [],
        [(1, "oom"), (2, "lost")],
        [(1, "oom"), (2, "lost"), (2, "lost")],
    ]


def test_attempts_that_the_worker_reported_are_not_counted_again(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task, "decode")  # no rung is left: the worker would record the failure now
        process.exit(-11)

    run.machine.actions["b"] = [act]
    run.run()
    assert run.failed_attempts("b") == [(1, "decode")]
    assert run.failure("b")["message"] == "decode scripted by the test"
    assert run.deaths() == []


def test_process_that_dies_between_two_attempts_does_not_cost_one(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task, "oom")
        process.inbox.pop()  # the second attempt has not started
        process.exit(-9)

    run.machine.actions["b"] = [act, hang, hang]
    run.run()
    assert run.failed_attempts("b") == [(1, "oom"), (2, "stall"), (2, "stall")]


def test_process_that_dies_before_it_starts_its_clip_costs_an_attempt(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.exit(-11)

    run.machine.actions["b"] = [act, act]
    run.run()
    assert run.failed_attempts("b") == [(1, "crash"), (1, "crash")]
    assert run.started() == ["a", "c"]


def test_process_that_dies_after_its_result_is_complete_costs_nothing(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.finish(task)
        process.exit(-11)

    run.machine.actions["b"] = [act]
    run.run()
    assert [process.clip_ids for process in run.processes] == [["a", "b"], ["c"]]
    assert run.deaths() == []


def test_process_that_has_been_asked_to_end_can_be_replaced(run: Supervised) -> None:
    def die_later(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = lambda process: process.exit(-9)

    run.machine.actions["c"] = [die_later]
    run.run(slots=2)
    assert [process.clip_ids for process in run.processes][-1] == ["c"]
    assert run.deaths() == [("c", "lost")]
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def test_processes_that_end_on_request_are_not_failed_starts(run: Supervised) -> None:
    run.write_source("d", b"x")
    run.machine.actions["d"] = [beat(1.0, seconds=5)]
    run.run(slots=4)
    assert [process.exit_code for process in run.processes] == [0] * 4


def test_stalled_process_is_killed_and_waited_for(run: Supervised) -> None:
    begun = run.machine.now
    run.machine.actions["a"] = [hang]
    run.run(stall_seconds=3)
    assert run.processes[0].signals == [signal.SIGKILL]
    assert run.processes[0].end_timeouts == [10.0]
    (died,) = run.events("died")
    assert died["error"] == "no activity for 4 s; if it was busy, raise launcher.stall_seconds"
    assert died["class"] == "stall"
    assert 3 < run.machine.now - begun <= 4, "not earlier, and not much later"


def beat(cores: float, seconds: float) -> Callable[[FakeProcess, ClipTask], None]:
    """Send a heartbeat per second while using a fraction of one core; after some seconds, finish the clip."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        begun = last = process.machine.now

        def work(process: FakeProcess) -> None:
            nonlocal last
            now = process.machine.now
            if now - begun >= seconds:
                process.on_wait = lambda process: None
                process.finish(task)
                process.ready()
            elif now - last >= 1:
                last = now
                process.heartbeat(cores * (now - begun))

        process.begin(task)
        process.on_wait = work

    return act


@pytest.mark.parametrize(("cores", "is_stalled"), [(0.0, True), (0.015, True), (0.025, False), (1.0, False)])
def test_heartbeats_count_only_if_the_process_uses_the_cpu(run: Supervised, cores: float, is_stalled: bool) -> None:
    run.machine.actions["a"] = [beat(cores, seconds=20)]
    run.run(stall_seconds=5)
    assert run.deaths() == ([("a", "stall")] if is_stalled else [])


def test_process_that_once_used_the_cpu_and_stops_is_stalled(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.heartbeat(100.0)
        process.on_wait = lambda process: process.heartbeat(100.0)

    run.machine.actions["a"] = [act]
    run.run(stall_seconds=5)
    assert run.deaths() == [("a", "stall")]


@pytest.mark.parametrize("is_hanging", [False, True])
def test_suspension_is_no_stall(run: Supervised, is_hanging: bool) -> None:
    """A scheduler suspends a job, so that the supervisor and its processes are stopped for an hour, three times."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        machine, begun = process.machine, process.machine.now
        resumes_at = [begun + seconds for seconds in (2.0, 4000.0, 8000.0)]

        def work(process: FakeProcess) -> None:
            if resumes_at and machine.now >= resumes_at[0]:
                resumes_at.pop(0)
                machine.now += 3600
            elif resumes_at and not is_hanging:
                machine.now = min(machine.now + 0.5, resumes_at[0])
                process.report("track")
            elif not is_hanging:
                process.on_wait = lambda process: None
                process.finish(task)
                process.ready()

        process.begin(task)
        process.on_wait = work

    run.machine.actions["a"] = [act]
    run.run(stall_seconds=60)
    assert run.deaths() == ([("a", "stall")] if is_hanging else [])


def test_progress_counts_as_activity(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        begun = process.machine.now

        def work(process: FakeProcess) -> None:
            if process.machine.now - begun < 30:
                process.report("track")
            else:
                process.on_wait = lambda process: None

        process.begin(task)
        process.on_wait = work

    begun = run.machine.now
    run.machine.actions["a"] = [act]
    run.run(stall_seconds=5)
    assert run.deaths() == [("a", "stall")]
    assert run.machine.now - begun > 34, "only after the last report"


def test_stage_of_a_failed_clip_is_that_of_its_last_attempt(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.report("track")
        process.exit(-11)

    run.machine.actions |= {"a": [act, act], "b": [act, die(-11)]}
    run.run()
    assert run.failure("a")["stage"] == "track"
    assert run.failure("b")["stage"] is None


def test_stage_of_the_clip_before_is_not_that_of_a_failed_clip(run: Supervised) -> None:
    def report(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.report("track")
        process.finish(task)
        process.ready()

    def fail_without_stage(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task, "decode")  # no rung is left
        process.exit(-11)

    run.machine.actions |= {"a": [report], "b": [fail_without_stage]}
    run.run()
    assert run.processes[0].clip_ids == ["a", "b"]
    assert run.failure("b")["stage"] is None


def test_attempts_at_the_clip_before_do_not_hide_that_the_next_was_lost(run: Supervised) -> None:
    def fail_cleanly(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task, "decode")
        process.ledger.append("ended", clip_id=task.clip.clip_id, state="failed")
        process.ready()

    def die_before_start(process: FakeProcess, task: ClipTask) -> None:
        process.exit(-11)

    run.machine.actions |= {"a": [fail_cleanly], "b": [die_before_start]}
    run.run()
    assert run.processes[0].clip_ids == ["a", "b"]
    assert run.deaths() == [("b", "crash")]


def test_process_that_ends_slowly_because_no_clip_is_left_is_not_stalled(run: Supervised) -> None:
    def end_late(process: FakeProcess) -> None:
        asked = process.machine.now

        def wait(process: FakeProcess) -> None:
            if process.machine.now - asked >= 20:
                process.exit(0)

        process.on_wait = wait

    def start(process: FakeProcess) -> None:
        process.on_end = end_late
        process.ready()

    run.machine.starts = [start, start]
    run.machine.actions["c"] = [beat(1.0, seconds=30)]
    run.run(slots=2, stall_seconds=5)
    (idle,) = (process for process in run.processes if "c" not in process.clip_ids)
    assert (idle.signals, idle.exit_code) == ([], 0)


@pytest.mark.parametrize(("stall_seconds", "start_seconds"), [(2, 300), (400, 400)])
def test_new_process_may_need_longer(run: Supervised, stall_seconds: float, start_seconds: float) -> None:
    def start_late(process: FakeProcess) -> None:
        begun = process.machine.now
        process.on_wait = lambda process: ready_after(process, begun)

    def ready_after(process: FakeProcess, begun: float) -> None:
        if process.machine.now - begun >= start_seconds - 2:
            process.on_wait = lambda process: None
            process.ready()

    run.machine.starts = [start_late]
    run.run(stall_seconds=stall_seconds)
    assert len(run.processes) == 1
    run.machine.starts = [lambda process: None] * 3
    begun = run.machine.now
    with pytest.raises(AotError, match=r"3 worker processes in a row died .* \(no activity for (30|40)\d s"):
        run.supervisor(stall_seconds=stall_seconds).run(run.tasks_given)
    assert run.machine.now - begun == pytest.approx(3 * start_seconds, abs=3)
    assert run.processes[-1].signals[0] is signal.SIGKILL


def test_three_failed_starts_in_a_row_end_the_run(run: Supervised) -> None:
    def fail_to_start(process: FakeProcess) -> None:
        process.exit(1)

    run.machine.starts = [fail_to_start] * 2
    run.run()
    assert len(run.processes) == 3, "two failures are no reason to stop"
    run.machine.starts = [fail_to_start] * 3
    with pytest.raises(AotError, match="3 worker processes in a row died before they could take a clip") as error:
        run.supervisor().run(run.tasks_given)
    log = run.paths.log(run.processes[0].start.worker)
    assert str(error.value).endswith(f"(its process ended with exit code 1); see {log}")


def test_failed_starts_are_counted_since_the_last_process_that_was_ready(run: Supervised) -> None:
    def fail_to_start(process: FakeProcess) -> None:
        process.exit(1)

    run.machine.starts = [fail_to_start, fail_to_start, FakeProcess.ready, fail_to_start, fail_to_start]
    run.machine.actions["a"] = [die(-9)]
    run.run()
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def interrupted(run: Supervised, error: BaseException) -> None:
    """Run with two slots until both processes hang in a clip; then the error is raised."""
    run.machine.actions = {"a": [hang], "b": [hang]}
    run.machine.interrupt = error
    with pytest.raises(type(error)):
        run.run(slots=2)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyboardInterrupt(), "stopped by the user"),
        (WriteError("disk full"), "stopped by WriteError"),
        (SystemExit(), "stopped by SystemExit"),
    ],
)
def test_interrupted_clips_are_recorded_and_do_not_count(run: Supervised, error: BaseException, reason: str) -> None:
    interrupted(run, error)
    assert [process.signals for process in run.processes] == [[signal.SIGINT]] * 2
    events = run.events("interrupted")
    assert sorted(event["clip_id"] for event in events) == ["a", "b"]
    assert {(event["reason"], event["is_counted"]) for event in events} == {(reason, False)}
    assert [task.attempts for task in run.tasks()] == [(), (), ()]
    assert run.started() == ["a", "b"], "no other clip is started"


def test_processes_that_ignore_the_interrupt_are_killed_after_a_common_grace_period(run: Supervised) -> None:
    def ignore(process: FakeProcess) -> None:
        process.ignores_interrupts = True
        process.ready()

    run.machine.starts = [ignore, ignore]
    begun = run.machine.now
    interrupted(run, KeyboardInterrupt())
    assert [process.signals for process in run.processes] == [[signal.SIGINT, signal.SIGKILL]] * 2
    assert [process.end_timeouts for process in run.processes] == [[10.0], [0.0]]
    assert run.machine.now == begun + 10


def test_idle_process_is_ended_without_an_event(run: Supervised) -> None:
    run.machine.starts = [FakeProcess.ready, lambda process: None]
    run.machine.actions = {"a": [hang]}
    run.machine.interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run.run(slots=2)
    assert [event["clip_id"] for event in run.events("interrupted")] == ["a"]
    assert run.processes[1].signals == [signal.SIGINT]


@pytest.mark.parametrize(
    ("clip_id", "is_time_limit", "is_counted"), [("a", True, True), ("b", True, False), ("a", False, False)]
)
def test_only_a_time_limit_counts_and_only_for_clips_that_had_all_the_time(
    run: Supervised, clip_id: str, is_time_limit: bool, is_counted: bool
) -> None:
    supervisor = run.supervisor()

    def abandon(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = lambda process: supervisor.abandon(
            "no more time", is_time_limit=is_time_limit, by_scheduler=True
        )

    run.machine.actions[clip_id] = [abandon]
    supervisor.run(run.tasks())
    (event,) = run.events("interrupted")
    assert (event["clip_id"], event["reason"], event["is_counted"]) == (clip_id, "no more time", is_counted)
    assert event["by_scheduler"]
    assert run.started()[-1] == clip_id, "the other clips are left to the requeued task"
    attempts = {task.clip.clip_id: [attempt.kind for attempt in task.attempts] for task in run.tasks()}
    assert attempts[clip_id] == (["lost"] if is_counted else [])
    assert attempts["c"] == []


def test_clip_that_was_repeated_in_its_slot_had_all_the_time(run: Supervised) -> None:
    supervisor = run.supervisor()

    def abandon(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = lambda process: supervisor.abandon("no more time", is_time_limit=True)

    run.machine.actions["a"] = [die(-11), abandon]
    supervisor.run(run.tasks())
    assert [event["is_counted"] for event in run.events("interrupted")] == [True]


def test_interruption_is_recorded_before_the_processes_have_ended(run: Supervised) -> None:
    """A scheduler may kill the supervisor a few seconds after its signal."""
    supervisor = run.supervisor()
    recorded: list[int] = []

    def abandon(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.ignores_interrupts = True
        end, process.end = process.end, lambda seconds: (recorded.append(len(run.events("interrupted"))), end(seconds))
        process.on_wait = lambda process: supervisor.abandon("preempted")

    run.machine.actions["a"] = [abandon]
    supervisor.run(run.tasks())
    assert recorded == [1]


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_part_files_of_killed_processes_are_removed(run: Supervised, is_interrupted: bool) -> None:
    parts: list[Path] = []

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        parts.append(process.write_part())
        if not is_interrupted:
            process.exit(-9)

    other = run.paths.results / f".{host()}-{os.getpid()}-abc.h5.part"
    other.parent.mkdir(parents=True)
    other.touch()
    run.machine.actions["a"] = [act]
    if is_interrupted:
        run.machine.interrupt = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            run.run()
    else:
        run.run()
    assert len(parts) == 1
    assert not parts[0].exists()
    assert other.exists(), "of a process that is not ours"


def test_ledger_of_an_active_process_is_touched_every_15_seconds(
    run: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[float] = []
    begun = run.machine.now
    monkeypatch.setattr(Ledger, "touch", lambda self: touched.append(run.machine.now - begun))
    run.machine.actions["a"] = [beat(1.0, seconds=50)]
    run.run(stall_seconds=600)
    assert touched == [15.5, 31.0, 46.5]


def test_retries_of_the_worker_itself_are_not_those_of_the_supervisor(run: Supervised) -> None:
    run.machine.actions["a"] = [fail("oom", "oom")]
    run.run()
    assert len(run.processes) == 1
    assert run.started() == ["a", "a", "a", "b", "c"]


def claim_elsewhere(run: Supervised, clip_id: str) -> None:
    """Let a living worker on another machine compute a clip."""
    ledger = Ledger(run.paths, "other")
    ledger.append("started", **run.task(clip_id).start_fields(Rung(1, 1, lean=False)), host="elsewhere", pid=7)
    path = run.paths.claim(clip_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"worker": "other", "host": "elsewhere", "pid": 7}))


def test_clip_that_a_living_worker_computes_elsewhere_is_left_to_it(run: Supervised) -> None:
    claim_elsewhere(run, "a")
    tasks = run.tasks()

    def finish_elsewhere() -> None:
        record_done(run.paths, tasks[0], Ledger(run.paths, "other"))
        run.paths.claim("a").unlink()

    run.machine.later(40.0, finish_elsewhere)
    run.supervisor().run(tasks)
    assert run.started() == ["a", "b", "c"], "only by the other worker"
    assert run.processes[0].clip_ids == ["b", "c"]
    assert [event["clip_id"] for event in run.display.events if event["event"] == "ended"][-1] == "a"
    assert run.works() == dict.fromkeys("abc", "nothing")
    assert list(run.paths.claim("").parent.iterdir()) == []


def test_clip_of_a_worker_elsewhere_that_has_died_is_computed_last(run: Supervised) -> None:
    claim_elsewhere(run, "a")
    run.run()
    assert [clip_id for process in run.processes for clip_id in process.clip_ids] == ["b", "c", "a"]
    assert run.machine.now >= SILENT_SECONDS
    assert run.works() == dict.fromkeys("abc", "nothing")
