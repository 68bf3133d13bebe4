"""A supervisor whose workers read ahead: which clip is read, and which one is charged if a process dies."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from aot.runs.history import history_so_far
from aot.runs.task import ClipTask
from tests.launching.fake_processes import Action, FakeProcess, finish
from tests.launching.supervised import CLIPS, Supervised


@pytest.fixture
def run(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)


def read(process: FakeProcess, *, is_over: bool = False) -> None:
    """Begin to read the following clip, and end it or not."""
    assert process.following is not None
    task = process.following
    settings = {"content": task.fingerprint.digest, "work": "all", "rung": 1, "frame_interval": 1, "lean": False}
    process._append("reading ahead", task, **settings)
    if is_over:
        process._append("read ahead", task)


def log(current: str, other: str) -> str:
    """What the handler of a fatal signal writes to the log."""
    files = {"read": "aot/launching/read_ahead.py", "compute": "aot/pipeline.py", "write": "aot/writing/behind.py"}
    stacks = [
        f"{title} 0x0000{number} (most recent call first):\n"
        + (f'  File "/x/{files[name]}", line 9 in f\n  File "threading.py", line 1 in run\n' if name in files else "")
        for number, (title, name) in enumerate((("Thread", other), ("Current thread", current)))
    ]
    return "Fatal Python error: Segmentation fault\n\n" + "\n".join([*stacks, "Extension modules: numpy\n"])


def die_reading(code: int, text: str = "", *, is_over: bool = False) -> Action:
    """Start the clip and read the following one; then the process ends."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process, is_over=is_over)
        process.on_wait = end

    def end(process: FakeProcess) -> None:
        process.on_wait = lambda process: None
        process.write_log(text)
        process.exit(code)

    return act


def attempts(run: Supervised) -> dict[str, list[str | None]]:
    digests = {task.clip.clip_id: task.fingerprint.digest for task in run.tasks_given}
    series = history_so_far(run.paths, digests).series
    return {clip_id: [attempt.kind for attempt in found] for clip_id, found in series.items()}


def record(processes: list[tuple[str, str | None]]) -> Action:
    """Note the clip and the one to read ahead, then finish."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        processes.append((task.clip.clip_id, process.following and process.following.clip.clip_id))
        finish(process, task)

    return act


def test_next_clip_is_announced(run: Supervised) -> None:
    seen: list[tuple[str, str | None]] = []
    run.machine.actions = {clip_id: [record(seen)] for clip_id in CLIPS}
    run.run()
    assert seen == [("a", "b"), ("b", "c"), ("c", None)]


def test_several_workers_read_different_clips(run: Supervised) -> None:
    for clip_id in "def":
        run.write_source(clip_id, b"x" * 40)
    seen: list[tuple[str, str | None]] = []
    run.machine.actions = {clip_id: [record(seen)] for clip_id in "abcdef"}
    run.run(slots=2)
    assert seen[:2] == [("a", "c"), ("b", "d")], "the second worker was about to take b"
    followed = dict(seen)
    assert sorted(followed) == list("abcdef")
    read_ahead = [clip_id for clip_id in followed.values() if clip_id]
    assert len(set(read_ahead)) == len(read_ahead)


def test_a_clip_that_a_busy_worker_has_read_is_left_to_an_idle_one_at_the_end(run: Supervised) -> None:
    def wait_for_c(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = lambda process: process.exit(-9) if run.works()["c"] == "nothing" else None

    run.machine.actions["a"] = [wait_for_c]
    run.run(slots=2)
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


@pytest.mark.parametrize(
    ("code", "text", "charged", "kind"),
    [
        (-11, log("read", "compute"), "b", "crash"),
        (-11, log("compute", "read"), "a", "crash"),
        (-11, log("write", "read"), "a", "crash"),
        (-6, "terminate called after throwing an instance of 'std::bad_alloc'\n" + log("read", "compute"), "b", "oom"),
    ],
)
def test_thread_that_crashed_decides_which_clip_is_charged(
    run: Supervised, code: int, text: str, charged: str, kind: str
) -> None:
    run.machine.actions["a"] = [die_reading(code, text), finish]
    run.run()
    assert run.deaths() == [(charged, kind)]
    interrupted = [(event["clip_id"], event["is_counted"]) for event in run.events("interrupted")]
    assert interrupted == ([] if charged == "a" else [("a", False)])
    (ended,) = run.events("read ahead")
    assert (ended["clip_id"], "its process was killed by SIG" in ended["error"]) == ("b", True)
    assert [process.clip_ids for process in run.processes] == [["a"], ["a", "b", "c"]]
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


@pytest.mark.parametrize("text", ["", log("elsewhere", "read"), "Fatal Python error: Aborted\n\n" + log("", "read")])
@pytest.mark.parametrize("code", [-9, -11, 1])
@pytest.mark.parametrize("guilty", ["a", "b"])
def test_both_clips_are_repeated_without_reading_ahead_where_it_is_not_known(
    run: Supervised, code: int, text: str, guilty: str
) -> None:
    seen: list[tuple[str, str | None]] = []

    def die_again(process: FakeProcess, task: ClipTask) -> None:
        seen.append((task.clip.clip_id, process.following and process.following.clip.clip_id))
        process.begin(task)
        process.exit(code)

    run.machine.actions = {
        "a": [die_reading(code, text), die_again if guilty == "a" else record(seen), record(seen)],
        "b": [die_again if guilty == "b" else record(seen), record(seen)],
        "c": [record(seen)],
    }
    run.run()
    (interrupted,) = run.events("interrupted")
    assert (interrupted["clip_id"], interrupted["is_counted"]) == ("a", False)
    assert interrupted["reason"].endswith(", while b was read ahead")
    assert [clip_id for clip_id, _ in run.deaths()] == [guilty]
    assert {following for _, following in seen} == {None}, "neither of both is involved in reading ahead again"
    assert [clip_id for clip_id, _ in seen] == (["a", "a", "b", "c"] if guilty == "a" else ["a", "b", "b", "c"])
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def test_clip_whose_reading_ahead_is_over_is_not_involved(run: Supervised) -> None:
    run.machine.actions["a"] = [die_reading(-9, is_over=True)]
    run.run()
    assert run.deaths() == [("a", "lost")]
    assert run.events("interrupted") == []


def test_clip_that_ends_every_process_fails_without_costing_the_one_before(run: Supervised) -> None:
    def die(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.exit(-11)

    run.machine.actions = {"a": [die_reading(-11, log("read", "compute"))], "b": [die]}
    run.run()
    assert run.failed_attempts("b") == [(1, "crash"), (1, "crash")]
    assert run.works() == {"a": "nothing", "b": "failed before", "c": "nothing"}


def test_process_that_dies_between_two_clips_has_died_of_the_one_it_reads(run: Supervised) -> None:
    def act(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process)
        process.finish(task)
        process.exit(-9)

    run.machine.actions["a"] = [act]
    run.run()
    assert run.deaths() == [("b", "lost")]
    assert [process.clip_ids for process in run.processes] == [["a"], ["b", "c"]]


def test_stalled_process_that_reads_ahead_is_not_known_to_have_stalled_in_either(run: Supervised) -> None:
    """A call that holds the GIL stops all threads."""

    def hang_reading(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process)

    run.machine.actions["a"] = [hang_reading]
    run.run(stall_seconds=3)
    assert run.processes[0].signals == [signal.SIGKILL]
    assert run.deaths() == []
    (interrupted,) = run.events("interrupted")
    assert interrupted["reason"].startswith("no activity for 4 s; ")
    assert interrupted["reason"].endswith(", while b was read ahead")
    assert [process.clip_ids for process in run.processes] == [["a"], ["a", "b", "c"]]


def test_reading_that_hangs_until_the_clip_s_turn_is_charged_to_it(run: Supervised) -> None:
    def finish_while_reading(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process)
        process.finish(task)
        process.ready()

    def hang(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)

    run.machine.actions = {"a": [finish_while_reading], "b": [hang]}
    run.run(stall_seconds=3)
    assert run.deaths() == [("b", "stall")]
    assert run.events("interrupted") == []


def test_clip_that_another_worker_has_taken_is_not_charged(run: Supervised) -> None:
    """Worker 0 still reads c when worker 1 has nothing else to do, and takes it."""

    def die_late(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process)
        process.on_wait = lambda process: process.exit(-9) if run.works()["c"] == "nothing" else None

    run.machine.actions["a"] = [die_late]
    run.run(slots=2)
    assert run.deaths() == []
    assert [event["clip_id"] for event in run.events("interrupted")] == ["a"]
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def test_charges_are_those_that_a_later_command_counts(run: Supervised) -> None:
    """After the supervisor has died, too."""
    stop: list[Any] = []

    def charge_and_stop(process: FakeProcess, task: ClipTask) -> None:
        die_reading(-11, log("read", "compute"))(process, task)
        run.machine.interrupt = None
        stop.append(process)

    def interrupt(process: FakeProcess, task: ClipTask) -> None:
        run.machine.interrupt = KeyboardInterrupt()
        process.begin(task)

    run.machine.actions["a"] = [charge_and_stop, interrupt]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert attempts(run) == {"b": ["crash"]}


def test_stopping_leaves_no_clip_that_was_only_read(run: Supervised) -> None:
    def read_and_wait(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        read(process)
        run.machine.interrupt = KeyboardInterrupt()

    run.machine.actions["a"] = [read_and_wait]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert [event["clip_id"] for event in run.events("interrupted")] == ["a"]
    assert attempts(run) == {}
