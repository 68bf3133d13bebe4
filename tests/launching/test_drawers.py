"""Drawers: processes that draw complete clips while the workers compute others.

The supervisor has processes and a clock in memory. test_clips_are_drawn_without_torch_and_without_a_gpu has real ones.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aot.errors import AotError
from aot.launching import supervisor as supervisor_module
from aot.paths import RunPaths
from aot.run import main
from aot.runs.ledger import read_events
from aot.runs.summary import summary_rows
from aot.runs.task import ClipTask, Work
from aot.status import StatusReader
from aot.system.processes import host
from tests.launching.clips import Clips, assert_same_results
from tests.launching.fake_processes import Action, FakeProcess, die, finish, hang
from tests.launching.supervised import CLIPS, Supervised


def later(may_end: Callable[[], bool], note: Callable[[str], None] = lambda clip_id: None) -> Action:
    """Begin a clip, and finish it when the supervisor waits and the condition holds; then its id is noted."""

    def act(process: FakeProcess, task: ClipTask) -> None:
        def end(process: FakeProcess) -> None:
            if may_end():
                process.on_wait = lambda process: None
                note(task.clip.clip_id)
                process.finish(task)
                process.ready()

        process.begin(task)
        process.on_wait = end

    return act


@pytest.fixture
def run(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)


def compute_partly(process: FakeProcess, task: ClipTask) -> None:
    process.summary = {"object_errors": {"2": "no mask"}}
    finish(process, task)
    process.summary = {}


def test_drawer_draws_what_the_worker_has_computed(run: Supervised) -> None:
    sent: list[ClipTask] = []

    def draw(process: FakeProcess, task: ClipTask) -> None:
        sent.append(task)
        finish(process, task)

    run.machine.actions["b"] = [compute_partly]
    run.machine.drawings = {clip_id: [draw] for clip_id in CLIPS}
    run.run(memory_gb=3.5)
    (worker,), (drawer,) = run.processes, run.drawers
    assert worker.clip_ids == drawer.clip_ids == ["a", "b", "c"]
    assert [(task.work, task.attempts, task.is_scored, task.is_partial) for task in sent] == [
        (Work.OVERLAY, (), False, clip_id == "b") for clip_id in "abc"
    ]
    assert drawer.start.worker == f"7_1.{host()}-{os.getpid()}-draw0"
    assert drawer.slot.environment()["CUDA_VISIBLE_DEVICES"] == ""
    assert (worker.exit_code, drawer.exit_code) == (0, 0)
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def test_worker_takes_the_next_clip_before_its_last_one_is_drawn_and_ends_before_the_last_drawing(
    run: Supervised,
) -> None:
    order: list[str] = []

    def compute(process: FakeProcess, task: ClipTask) -> None:
        order.append(f"compute {task.clip.clip_id}")
        finish(process, task)

    def note(clip_id: str) -> None:
        order.append(f"draw {clip_id}, the worker {'has ended' if worker_ended() else 'is running'}")

    def worker_ended() -> bool:
        return run.processes[0].exit_code is not None

    run.machine.actions = {clip_id: [compute] for clip_id in CLIPS}
    run.machine.drawings = {clip_id: [later(lambda: True, note)] for clip_id in CLIPS}
    run.run()
    assert order[:3] == ["compute a", "compute b", "compute c"]
    assert order[3:] == [f"draw {clip_id}, the worker has ended" for clip_id in "abc"]


def test_worker_waits_while_too_many_clips_wait_for_drawers(run: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_MAX_WAITING_PER_DRAWER", 1)
    num_computed: list[int] = []

    run.write_source("d", b"x")
    run.machine.drawings = {
        clip_id: [later(lambda: True, lambda clip_id: num_computed.append(len(run.started())))] for clip_id in "abcd"
    }
    run.run()
    assert num_computed == [2, 3, 4, 4], "one clip is drawn, and one waits"
    (worker,) = run.processes
    assert worker.clip_ids == ["a", "b", "c", "d"], "it waits, and is not replaced"
    assert run.deaths() == []


def test_clips_of_earlier_commands_are_drawn_without_a_worker(run: Supervised, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "_MAX_WAITING_PER_DRAWER", 1)
    run.run()
    run.processes.clear()
    run.drawers.clear()
    tasks = run.tasks(pictures=True)
    assert {(task.work, task.is_scored) for task in tasks} == {(Work.OVERLAY, True)}
    run.supervisor(pictures=True).run(tasks)
    (drawer,) = run.drawers
    assert drawer.clip_ids == ["a", "b", "c"]
    assert run.processes == []
    run.write_source("d", b"x")
    run.machine.drawings["a"] = [later(lambda: "d" in run.started())]
    run.supervisor(pictures=True, stall_seconds=5).run(run.tasks(pictures=True))
    assert run.deaths() == [], "a worker does not wait for the clips of earlier commands"


def test_no_more_drawers_than_slots_or_drawings(run: Supervised) -> None:
    run.run(slots=2, drawers=3)
    assert 1 <= len(run.drawers) <= 3
    assert sorted(clip_id for drawer in run.drawers for clip_id in drawer.clip_ids) == ["a", "b", "c"]
    assert len({drawer.start.worker for drawer in run.drawers}) == len(run.drawers)


@pytest.mark.parametrize("action", [die(-9), die(-11), die(1, "MemoryError"), hang])
def test_dead_drawer_repeats_its_drawing_only(run: Supervised, action: Any) -> None:
    run.machine.drawings["b"] = [action]
    run.run()
    assert run.started() == ["a", "b", "c"]
    assert run.started("overlay") == ["a", "b", "b", "c"]
    assert len(run.processes) == 1, "the worker continues"
    assert [drawer.clip_ids for drawer in run.drawers] == [["a", "b"], ["b", "c"]]
    assert len(run.deaths()) == 1
    assert run.works() == dict.fromkeys(CLIPS, "nothing")


def test_drawer_that_dies_after_scoring_does_not_score_again(run: Supervised) -> None:
    sent: list[bool] = []

    def die_later(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.finish(task)
        process.inbox.pop()  # the "ended" event has not been written
        process.exit(-11)

    def draw(process: FakeProcess, task: ClipTask) -> None:
        sent.append(task.is_scored)
        finish(process, task)

    run.machine.drawings["b"] = [die_later, draw]
    run.run()
    assert sent == [True]


def test_clip_that_cannot_be_drawn_is_partial_and_is_drawn_by_the_same_command(run: Supervised) -> None:
    run.machine.drawings["b"] = [die(-11), die(-11)]
    run.run()
    assert run.failed_attempts("b") == [(1, "crash"), (1, "crash")]
    assert run.paths.clip("b").result.exists()
    assert {row["clip_id"]: row["state"] for row in summary_rows(run.paths, "abc")} == {
        "a": "done", "b": "partial", "c": "done",
    }  # fmt: skip
    (task,) = run.tasks()
    assert (task.clip.clip_id, task.work, task.attempts) == ("b", Work.OVERLAY, ())
    run.supervisor().run([task])
    assert run.tasks() == []
    assert run.started() == ["a", "b", "c"], "the result is not computed again"


def test_failed_drawings_are_not_attempts_at_the_result(run: Supervised) -> None:
    run.machine.drawings["b"] = [die(-11)]
    run.machine.interrupt = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run.run()
    run.paths.clip("b").result.unlink()
    (task,) = [task for task in run.tasks() if task.clip.clip_id == "b"]
    assert (task.work, task.attempts) == (Work.ALL, ())


def test_death_of_a_worker_does_not_disturb_the_drawing_of_its_last_clip(run: Supervised) -> None:
    drawn: list[str] = []

    def die_after_result(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.finish(task)
        process.exit(-11)

    run.machine.actions["a"] = [die_after_result]
    # When the worker has been replaced.
    run.machine.drawings["a"] = [later(lambda: len(run.processes) > 1, drawn.append)]
    run.run()
    assert drawn == ["a"]
    assert [process.clip_ids for process in run.processes] == [["a"], ["b", "c"]]
    assert run.deaths() == []
    assert run.started("overlay").count("a") == 1


@pytest.mark.parametrize("is_preempted", [False, True])
def test_drawings_are_left_to_the_next_command_and_do_not_count(run: Supervised, is_preempted: bool) -> None:
    supervisor = run.supervisor()

    def abandon(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        process.on_wait = lambda process: supervisor.abandon("no more time", is_time_limit=True)

    run.machine.drawings["a"] = [abandon if is_preempted else hang]
    if is_preempted:
        supervisor.run(run.tasks())
    else:
        run.machine.interrupt = KeyboardInterrupt()
        with pytest.raises(KeyboardInterrupt):
            supervisor.run(run.tasks())
    (event,) = run.events("interrupted")
    assert (event["clip_id"], event["is_counted"]) == ("a", False)
    assert run.started("overlay") == ["a"]
    tasks = run.tasks()
    assert [(task.work, task.attempts, task.is_scored) for task in tasks] == [(Work.OVERLAY, (), False)] * 3
    run.machine.interrupt = None
    run.supervisor().run(tasks)
    assert run.tasks() == []
    assert run.started() == ["a", "b", "c"]


def test_status_counts_clips_that_wait_for_a_drawer_as_pending(run: Supervised) -> None:
    counts: list[dict[str, int]] = []
    run.plan().write(with_sizes=False)
    reader = StatusReader(run.paths)

    def note(clip_id: str) -> None:
        counts.append(dict(reader.read().counts))

    run.machine.drawings = {clip_id: [later(lambda: True, note)] for clip_id in CLIPS}
    run.run()
    # The process of a fake drawer does not exist, so that no clip is running.
    assert counts == [{"pending": 3}, {"pending": 2, "done": 1}, {"pending": 1, "done": 2}]
    assert reader.read().counts == {"done": 3}
    assert reader.read().num_left == 0


def test_time_without_a_clip_is_not_part_of_a_stall(run: Supervised) -> None:
    """A drawer waits for clips, possibly for hours."""

    def compute_slowly(process: FakeProcess, task: ClipTask) -> None:
        begun = process.machine.now

        def work(process: FakeProcess) -> None:
            process.report("track")
            if process.machine.now - begun > 60:
                process.on_wait = lambda process: None
                process.finish(task)
                process.ready()

        process.begin(task)
        process.on_wait = work

    run.machine.actions["c"] = [compute_slowly]
    run.machine.drawings = {clip_id: [later(lambda: True)] for clip_id in CLIPS}
    run.run(stall_seconds=5)
    assert run.deaths() == []
    assert len(run.drawers) == 1


def test_three_failed_starts_of_drawers_end_the_run(run: Supervised) -> None:
    def fail_to_start(process: FakeProcess) -> None:
        process.exit(1)

    run.machine.drawer_starts = [fail_to_start] * 3
    with pytest.raises(AotError, match="3 worker processes in a row died before they could take a clip"):
        run.run()
    assert run.tasks()[0].work is Work.OVERLAY


def test_workers_that_start_do_not_hide_drawers_that_cannot(run: Supervised) -> None:
    def fail_to_start(process: FakeProcess) -> None:
        process.on_wait = lambda process: process.exit(1)

    for number in range(20):
        run.write_source(f"c{number}", b"x")
    run.machine.actions = {task.clip.clip_id: [later(lambda: True)] for task in run.tasks()}
    run.machine.drawer_starts = [fail_to_start] * 99
    with pytest.raises(AotError, match="3 worker processes in a row"):
        run.run()
    assert len(run.drawers) == 3


@pytest.mark.slow
def test_clips_are_drawn_without_torch_and_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real processes: the worker imports torch, the drawers do not; the files are those of `launcher=inline`."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    clips = Clips(tmp_path, {"a": 5, "b": 7, "c": 9})

    def arguments(name: str) -> list[str]:
        given = clips.arguments("dataset=recording", "output.overlay=true", "output.evaluate=true")
        given = [each for each in given if each != "dataset=videos"]
        return [*given, f"output.root={tmp_path / name}"]

    assert main([*arguments("inline"), "launcher=inline"]) == 0
    recorded = clips.folder / "clips" / "scored.jsonl"
    recorded.unlink()
    clips.inject("b", "import_torch")
    assert main([*arguments("local"), "launcher.drawers=2"]) == 0
    (inline,), (local,) = (list((tmp_path / name / "recording").iterdir()) for name in ("inline", "local"))
    found = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert sorted(each["clip_id"] for each in found) == ["a", "b", "c"]
    assert {(each["gpu"], each["has_torch"]) for each in found} == {("", False)}
    events = list(read_events(RunPaths(local)))
    assert clips.was_injected("b", 0, "import_torch")
    (worker,) = {event["pid"] for event in events if event["event"] == "started" and event["work"] == "all"}
    assert {event["gpu"] for event in events if event["pid"] == worker} == {"0"}
    drawers = {event["pid"] for event in events if event["event"] == "scored"}
    assert drawers == {each["pid"] for each in found}
    assert worker not in drawers
    assert not any("gpu" in event for event in events if event["pid"] in drawers)
    assert_same_results(inline, local)
    for clip_id in "abc":
        overlays = [RunPaths(root).clip(clip_id).overlay.read_bytes() for root in (inline, local)]
        assert overlays[0] == overlays[1]
        assert RunPaths(local).clip(clip_id).report.data.exists()
