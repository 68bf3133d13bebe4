"""A run folder that is deleted while its clips are processed: everything stops, and nothing makes the folder again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from aot.errors import RunDeleted
from aot.launching import worker as worker_module
from aot.launching.inline import InlineLauncher
from aot.launching.worker import Worker
from aot.paths import RunPaths
from aot.pipeline import ClipSummary
from aot.retry import Attempt, Rung
from aot.run import Run
from aot.runs.failure import record_failure
from aot.runs.ledger import TOUCH_SECONDS, Ledger, require_run
from aot.runs.task import ClipTask
from aot.status import StatusReader
from tests.launching.fake_processes import FakeProcess, finish
from tests.launching.in_memory import FakeLauncher, MemoryRun, part, summary_of
from tests.launching.slurm.test_monitor import Waited
from tests.launching.supervised import CLIPS, Supervised

MESSAGE = r"run/run.json was deleted while clips were processed, and nothing more is written to the run folder; "


def delete(paths: RunPaths) -> None:
    shutil.rmtree(paths.root)


@pytest.fixture
def run(tmp_path: Path) -> Supervised:
    return Supervised(tmp_path)


def test_supervisor_stops_when_a_process_cannot_write_its_events(run: Supervised) -> None:
    def lose(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        delete(run.paths)
        process.exit(1)

    run.machine.actions["b"] = [lose]
    with pytest.raises(RunDeleted, match=MESSAGE):
        run.run(slots=2)
    assert not run.paths.root.exists()
    assert all(process.exit_code is not None for process in [*run.processes, *run.drawers])


def test_supervisor_stops_in_the_middle_of_a_long_clip(run: Supervised) -> None:
    def compute(process: FakeProcess, task: ClipTask) -> None:
        process.begin(task)
        deleted_at = process.machine.now + 100

        def work(process: FakeProcess) -> None:
            process.report("track")
            if process.machine.now >= deleted_at and run.paths.root.exists():
                delete(run.paths)
            assert process.machine.now < deleted_at + 2 * TOUCH_SECONDS, "it still computes"

        process.on_wait = work

    run.machine.actions["a"] = [compute]
    with pytest.raises(RunDeleted, match=MESSAGE):
        run.run()
    assert not run.paths.root.exists()
    assert run.processes[0].exit_code == 130


def test_supervisor_starts_nothing_in_a_deleted_folder(run: Supervised) -> None:
    supervisor, tasks = run.supervisor(), run.tasks()
    delete(run.paths)
    with pytest.raises(RunDeleted, match=MESSAGE):
        supervisor.run(tasks)
    assert not run.paths.root.exists()
    assert run.processes == []


def test_folder_without_run_json_is_deleted_too(run: Supervised) -> None:
    run.machine.actions["b"] = [lambda process, task: (run.paths.run_json.unlink(), finish(process, task))]
    with pytest.raises(RunDeleted, match=MESSAGE):
        run.run()


@pytest.mark.parametrize("is_written", [False, True])
def test_inline_run_stops_after_the_attempt(tmp_path: Path, is_written: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    run = MemoryRun(tmp_path, CLIPS)
    computed: list[str] = []

    def process(clip: Any, parts: Any, settings: Any, paths: Any, on_progress: Any, ahead: Any) -> ClipSummary:
        computed.append(clip.clip_id)
        delete(run.paths)
        if is_written:  # by then, another program has made the folder again, for something else
            paths.result.parent.mkdir(parents=True)
            paths.result.touch()
        return ClipSummary(clip_id=clip.clip_id, **summary_of())

    monkeypatch.setattr(
        "aot.launching.inline.Worker", lambda *args, **options: Worker(*args, **options, process=process)
    )
    plan = run.plan()
    wait = InlineLauncher().launch(plan, plan.tasks())
    with pytest.raises(RunDeleted, match=MESSAGE):
        wait()
    assert computed == ["a"]
    assert [path.name for path in run.paths.root.rglob("*") if path.is_file()] == (["a.h5"] if is_written else [])


def test_no_further_drawing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = MemoryRun(tmp_path, CLIPS)
    drawn: list[str] = []

    def draw(drawing: str, clip: Any, paths: Any, config: Any, earlier_seconds: Any) -> None:
        drawn.append(drawing)
        delete(run.paths)

    monkeypatch.setattr(worker_module, "_make_drawing", draw)
    run.finish("a")
    worker = Worker(run.context(overlay=True, report=True), name="w")
    with pytest.raises(RunDeleted, match=MESSAGE):
        worker.run(run.task(overlay=True, report=True))
    worker.close()
    assert drawn == ["overlay"]
    assert not run.paths.root.exists()


def test_worker_does_not_start(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, CLIPS)
    context, task = run.context(), run.task()
    worker = Worker(context, name="w")
    delete(run.paths)
    with pytest.raises(RunDeleted, match=MESSAGE):
        worker.run(task)
    worker.close()
    with pytest.raises(RunDeleted, match=MESSAGE):
        Worker(context, name="w")
    assert not run.paths.root.exists()


def test_failure_of_a_clip_is_not_recorded(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, CLIPS)
    task = run.task()
    delete(run.paths)
    with pytest.raises(RunDeleted, match=MESSAGE):
        record_failure(
            task, [Attempt(Rung(1, 1, lean=False), "oom", "no more")], run.paths.clip("a"), Ledger(run.paths, "w"),
            frame_interval=1, log=run.paths.log("w"),
        )  # fmt: skip
    assert not run.paths.root.exists()


def test_command_that_waits_for_slurm_submits_nothing_again(tmp_path: Path) -> None:
    run = Waited(tmp_path)

    def submit(submission: Any) -> None:
        run.slurm.later(20, lambda: delete(run.paths))
        run.slurm.later(40, lambda: run.slurm.states.update(dict.fromkeys(submission.tasks, "FAILED")))

    run.slurm.on_submit = submit
    with pytest.raises(RunDeleted, match=MESSAGE):
        run.wait()
    assert run.submitted() == [["a", "b", "c", "d"]]
    assert run.slurm.now <= 5000 + 20 + 15
    assert not run.paths.root.exists()


def test_command_ends_with_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A launcher's arguments are recorded in run.json.
    monkeypatch.setattr("aot.config._absolute", lambda values: {key: str(value) for key, value in values.items()})
    run = MemoryRun(tmp_path, CLIPS)
    plan = run.plan(launcher=part(FakeLauncher, work=lambda plan, tasks: delete(plan.paths)))
    command = Run(plan, ["aot", "run"])
    command.start()
    assert command.finish() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{run.paths.root}: stopped: {run.paths.run_json} was deleted")
    assert not run.paths.root.exists()


def test_status_that_is_watched_ends(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, CLIPS)
    run.plan().write(with_sizes=False)
    reader = StatusReader(run.paths)
    assert reader.read().num_left == 3
    delete(run.paths)
    with pytest.raises(RunDeleted, match=MESSAGE):
        reader.read()


def test_file_server_that_does_not_answer_has_deleted_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "stat", refuse)
    require_run(RunPaths(tmp_path / "run"))
