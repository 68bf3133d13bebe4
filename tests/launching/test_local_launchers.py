"""The launchers of this machine, with a fake supervisor and a fake worker: order, preview, and how they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aot.errors import AotError
from aot.launching import inline, local
from aot.launching.inline import InlineLauncher
from aot.launching.local import LocalLauncher
from aot.launching.supervised_child import WorkerLimits
from aot.launching.worker import BrokenProcess
from aot.runs.ledger import Ledger
from aot.runs.parts import PartSweeper
from aot.runs.task import ClipTask
from tests.launching.in_memory import MemoryRun


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryRun:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return MemoryRun(tmp_path, {"a": 10, "b": 30, "c": 20, "d": 40})


class FakeSupervisor:
    """Keeps how it was constructed, and the clips that it was given."""

    made: list[FakeSupervisor]

    def __init__(self, run: Any, slots: Any, limits: WorkerLimits, display: Any) -> None:
        self.slots, self.limits = slots, limits
        FakeSupervisor.made.append(self)

    def run(self, tasks: Sequence[ClipTask]) -> None:
        self.clip_ids = [task.clip.clip_id for task in tasks]


@pytest.fixture
def supervisors(monkeypatch: pytest.MonkeyPatch) -> list[FakeSupervisor]:
    FakeSupervisor.made = []
    monkeypatch.setattr(local, "Supervisor", FakeSupervisor)
    return FakeSupervisor.made


@pytest.mark.parametrize(("workers", "expected"), [(None, "abcd"), (1, "abcd"), (2, "dbca")])
def test_several_workers_take_the_longest_clips_first(
    run: MemoryRun, supervisors: list[FakeSupervisor], workers: int | None, expected: str
) -> None:
    plan = run.plan()
    launcher = LocalLauncher(workers, memory_gb=2.5, stall_seconds=9.0, drawers=3)
    wait = launcher.launch(plan, plan.tasks())
    assert supervisors == [], "clips are processed while the command waits"
    wait()
    (supervisor,) = supervisors
    assert supervisor.clip_ids == list(expected)
    assert supervisor.limits == WorkerLimits(9.0, 2.5)
    assert [slot.is_drawer for slot in supervisor.slots] == [False] * (workers or 1) + [True] * 3 * (workers or 1)


def test_only_the_given_clips_are_ordered(run: MemoryRun, supervisors: list[FakeSupervisor]) -> None:
    plan = run.plan()
    LocalLauncher(2).launch(plan, plan.tasks()[:3])()
    assert supervisors[0].clip_ids == ["b", "c", "a"]


def test_work_is_divided_only_among_several_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not LocalLauncher().divides_work
    assert not LocalLauncher(1).divides_work
    assert LocalLauncher(2).divides_work
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert LocalLauncher().divides_work
    assert not InlineLauncher.divides_work


def test_preview_counts_the_workers_that_share_a_gpu(run: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    plan = run.plan()
    assert LocalLauncher(3).preview(plan, plan.tasks()).processes_per_gpu == 2
    assert LocalLauncher().preview(plan, plan.tasks()).processes_per_gpu == 1


def test_previews(run: MemoryRun) -> None:
    plan = run.plan()
    tasks = plan.tasks()
    shown = LocalLauncher(2, memory_gb=2.5).preview(plan, tasks)
    assert (shown.shards, shown.max_workers) == ([["d", "a"], ["b", "c"]], 2)
    assert (shown.available_bytes, shown.script, shown.workers_per_shard) == (2_500_000_000, None, 1)
    assert LocalLauncher(1).preview(plan, tasks).available_bytes is None
    assert LocalLauncher(2, drawers=3).preview(plan, tasks).drawers_per_shard == 3
    assert shown.processes_per_gpu == 1
    shown = InlineLauncher().preview(plan, tasks)
    assert (shown.shards, shown.max_workers, shown.available_bytes) == ([["a", "b", "c", "d"]], 1, None)


class FakeWorker:
    """Records the clips that it was given; `act` is called with every one of them."""

    act: Callable[[ClipTask], None]
    made: list[FakeWorker]

    def __init__(self, run: Any, *, on_event: Any) -> None:
        self.name = "own"
        self.on_event = on_event
        self.clip_ids: list[str] = []
        self.following: list[str | None] = []
        self.interrupted: list[str] = []
        self.is_closed = False
        FakeWorker.made.append(self)

    def run(self, task: ClipTask, on_progress: Any, following: ClipTask | None) -> None:
        self.clip_ids.append(task.clip.clip_id)
        self.following.append(None if following is None else following.clip.clip_id)
        self.on_event({"event": "started", "clip_id": task.clip.clip_id})
        on_progress("track", 0.5)
        FakeWorker.act(task)
        self.on_event({"event": "ended", "clip_id": task.clip.clip_id, "state": "done"})

    def touch_ledger(self) -> None:
        pass

    def record_interruption(self, task: ClipTask) -> None:
        self.interrupted.append(task.clip.clip_id)

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWorker]:
    FakeWorker.made, FakeWorker.act = [], staticmethod(lambda task: None)  # type: ignore[assignment]
    monkeypatch.setattr(inline, "Worker", FakeWorker)
    return FakeWorker.made


def fail_at(clip_id: str, error: BaseException) -> Any:
    def act(task: ClipTask) -> None:
        if task.clip.clip_id == clip_id:
            raise error

    return staticmethod(act)


def test_inline_launcher_takes_one_clip_after_another(
    run: MemoryRun, workers: list[FakeWorker], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = run.plan()
    wait = InlineLauncher().launch(plan, plan.tasks())
    assert workers == []
    wait()
    (worker,) = workers
    assert worker.clip_ids == ["a", "b", "c", "d"]
    assert worker.following == ["b", "c", "d", None]
    assert worker.is_closed
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_part_files_of_dead_workers_of_other_machines_are_removed(
    run: MemoryRun, launcher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left by SLURM tasks that were killed; those of other tasks, which are still running, stay."""
    now = [1000.0]
    parts = {pid: run.paths.results / f".node-{pid}-abc.h5.part" for pid in (101, 102)}
    run.paths.results.mkdir()
    for pid, path in parts.items():
        path.touch()
        Ledger(run.paths, f"node-{pid}").append("started", clip_id="other", host="node", pid=pid)

    def work(*arguments: Any) -> None:
        now[0] += 90
        os.utime(run.paths.ledger("node-102"), (1, 1))

    module = inline if launcher == "inline" else local
    monkeypatch.setattr(module, "PartSweeper", lambda paths: PartSweeper(paths, lambda: now[0]))
    FakeWorker.made, FakeWorker.act = [], staticmethod(work)  # type: ignore[assignment]
    monkeypatch.setattr(inline, "Worker", FakeWorker)
    monkeypatch.setattr(local, "Supervisor", lambda *arguments: SimpleNamespace(run=work))
    plan = run.plan()
    (InlineLauncher() if launcher == "inline" else LocalLauncher()).launch(plan, plan.tasks())()
    assert [pid for pid, path in parts.items() if path.exists()] == [102]


def test_inline_launcher_records_the_interrupted_clip(run: MemoryRun, workers: list[FakeWorker]) -> None:
    FakeWorker.act = fail_at("b", KeyboardInterrupt())
    plan = run.plan()
    with pytest.raises(KeyboardInterrupt):
        InlineLauncher().launch(plan, plan.tasks())()
    (worker,) = workers
    assert (worker.clip_ids, worker.interrupted, worker.is_closed) == (["a", "b"], ["b"], True)


def test_inline_launcher_cannot_replace_a_broken_process(run: MemoryRun, workers: list[FakeWorker]) -> None:
    FakeWorker.act = fail_at("b", BrokenProcess("CUDA is dead"))
    plan = run.plan()
    with pytest.raises(AotError, match=r"^CUDA is dead; launcher=local replaces such a process and continues$"):
        InlineLauncher().launch(plan, plan.tasks())()
    assert workers[0].interrupted == []
    assert workers[0].is_closed
