"""Submitting arrays of SLURM tasks, and what a task does on its node, without SLURM."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from submitit.core.utils import FailedJobError

from aot.errors import ConfigError
from aot.launching.plan import make_plan
from aot.launching.slurm import launcher as launcher_module
from aot.launching.slurm.launcher import SlurmLauncher, Task, follow_up_commands
from aot.launching.slurm.submissions import Submission, read_submissions
from aot.launching.supervised_child import WorkerLimits
from aot.paths import RunPaths
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask
from tests.launching.in_memory import MemoryRun

SIZES = {"a": 10, "b": 40, "c": 30, "d": 20, "e": 50}


class FakeJob:
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id


class FakeExecutor:
    """Stands in for submitit's executor; every array is a job.

    Attributes:
        refused_arrays: numbers of the arrays, from 0, that SLURM refuses.
        arrays: the tasks of every accepted array.
    """

    refused_arrays: set[int]
    arrays: list[list[Task]]
    num_arrays: int
    all_parameters: list[dict[str, Any]]

    def __init__(self, folder: Path, max_num_timeout: int, python: str) -> None:
        self.folder = folder
        self._batch: list[Task] = []

    def update_parameters(self, **parameters: Any) -> None:
        self.parameters = parameters
        FakeExecutor.all_parameters.append(parameters)

    @contextmanager
    def batch(self) -> Iterator[None]:
        self._jobs: list[FakeJob] = []
        yield
        number, FakeExecutor.num_arrays = FakeExecutor.num_arrays, FakeExecutor.num_arrays + 1
        if number in FakeExecutor.refused_arrays:
            self.folder.mkdir(parents=True, exist_ok=True)
            raise FailedJobError("sbatch: error: first line\nsbatch: error: Batch job submission failed: no such qos\n")
        FakeExecutor.arrays.append(self._batch)
        for index, job in enumerate(self._jobs):
            job.job_id = f"{70 + number}_{index}"

    def submit(self, task: Task) -> FakeJob:
        self._batch.append(task)
        self._jobs.append(FakeJob("not known yet"))
        return self._jobs[-1]


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> type[FakeExecutor]:
    FakeExecutor.refused_arrays, FakeExecutor.arrays, FakeExecutor.num_arrays = set(), [], 0
    FakeExecutor.all_parameters = []
    monkeypatch.setattr(launcher_module, "_Executor", FakeExecutor)
    monkeypatch.setattr(launcher_module, "max_array_tasks", lambda: 2)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("aot.launching.slurm.squeue.task_states", lambda tasks: {})
    return FakeExecutor


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path, SIZES)


def clip_ids(arrays: list[list[Task]]) -> list[list[list[str]]]:
    return [[[clip_task.clip.clip_id for clip_task in task.clip_tasks] for task in array] for array in arrays]


def test_clips_are_submitted_in_arrays_of_tasks_of_equal_cost(
    run: MemoryRun, executor: type[FakeExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = run.plan()
    launcher = SlurmLauncher(clips_per_task=2, wait=False, workers=3, stall_seconds=9, memory_gb=2.5)
    assert launcher.launch(plan, plan.tasks()) is None
    assert clip_ids(executor.arrays) == [[["e"], ["b", "a"]], [["c", "d"]]]
    (submission,) = read_submissions(run.paths)
    assert submission.tasks == {"70_0": ("e",), "70_1": ("b", "a"), "71_0": ("c", "d")}
    assert submission.jobs == ["70", "71"]
    for task in (task for array in executor.arrays for task in array):
        assert (task.workers, task.limits) == (3, WorkerLimits(9, 2.5))
        assert task.run.paths == run.paths
    shown = capsys.readouterr().out
    assert f"submitted 3 tasks as 70, 71; logs in {submission.folder}" in shown
    assert "not waiting for the tasks (launcher.wait=false)" in shown
    assert shown.endswith(f"{follow_up_commands(run.paths.root)}\n")


def dependencies(executor: type[FakeExecutor]) -> list[str | None]:
    return [parameters["additional_parameters"].get("dependency") for parameters in executor.all_parameters]


def test_arrays_that_would_exceed_the_parallelism_together_run_one_after_another(
    run: MemoryRun, executor: type[FakeExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    """An array has at most two tasks on this cluster."""
    plan = run.plan()
    SlurmLauncher(clips_per_task=1, wait=False, array_parallelism=2).launch(plan, plan.tasks())
    assert dependencies(executor) == [None, "afterany:70", "afterany:71"]
    (submission,) = read_submissions(run.paths)
    assert submission.after == {"70": (), "71": ("70",), "72": ("71",)}
    assert "submitted 5 tasks as 70, 71, 72, 3 of them to start when the tasks before them have ended; logs in" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("parallelism", "expected"),
    [(9, [None] * 3), (4, [None, None, "afterany:70:71"]), (3, [None, "afterany:70", "afterany:70"])],
)
def test_arrays_run_together_as_far_as_the_parallelism_allows(
    run: MemoryRun, executor: type[FakeExecutor], parallelism: int, expected: list[str | None]
) -> None:
    plan = run.plan()
    SlurmLauncher(clips_per_task=1, wait=False, array_parallelism=parallelism).launch(plan, plan.tasks())
    assert dependencies(executor) == expected


def test_parallelism_counts_the_tasks_of_all_runs_of_a_sweep(
    tmp_path: Path, executor: type[FakeExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = MemoryRun(tmp_path, SIZES)
    runs = [RunPaths(tmp_path / "sweep-01234567" / name) for name in ("k1", "k2")]
    other = Submission(
        runs[0].submissions / "20260101", {"33_0": ("a",), "33_1": ("b",), "33_2": ("c",)}, {"33": ("32",)}
    )
    for paths in runs:
        paths.root.mkdir(parents=True)
        paths.run_json.write_text(run.paths.run_json.read_text())
    other.save()
    states = {"33_0": "RUNNING", "33_1": "PENDING", "33_2": "COMPLETED"}
    monkeypatch.setattr(
        "aot.launching.slurm.squeue.task_states", lambda tasks: {task: states.get(task, "GONE") for task in tasks}
    )
    plan = make_plan(run.config(), runs[1].root)
    SlurmLauncher(clips_per_task=5, wait=False, array_parallelism=3).launch(plan, plan.tasks())
    SlurmLauncher(clips_per_task=5, wait=False, array_parallelism=2).launch(plan, plan.tasks())
    assert dependencies(executor) == [None, "afterany:33"], "2 + 1 tasks may run together, but not with parallelism 2"


def test_dependency_of_the_user_is_kept(run: MemoryRun, executor: type[FakeExecutor]) -> None:
    plan = run.plan()
    launcher = SlurmLauncher(
        clips_per_task=1, wait=False, array_parallelism=2, additional_parameters={"dependency": "afterok:5"}
    )
    launcher.launch(plan, plan.tasks())
    assert dependencies(executor)[:2] == ["afterok:5", "afterok:5,afterany:70"]


def test_many_tasks_begin_at_different_times(run: MemoryRun) -> None:
    plan = run.plan()
    delays = {number: launcher_module._start_delay(number) for number in (1, 9, 10, 55, 300, 5000)}
    assert delays[1] == delays[9] == []
    seconds = {
        number: re.findall(r"^sleep \$\(\(RANDOM % (\d+)\)\)\.", *lines) for number, lines in delays.items() if lines
    }
    assert seconds == {10: ["1"], 55: ["5"], 300: ["30"], 5000: ["30"]}
    script = SlurmLauncher(clips_per_task=1, array_parallelism=1).preview(plan, plan.tasks()).script or ""
    assert "sleep" not in script


def test_first_refused_array_is_an_error(run: MemoryRun, executor: type[FakeExecutor]) -> None:
    executor.refused_arrays = {0}
    plan = run.plan()
    expected = r"^SLURM refused the tasks: first line; Batch job submission failed: no such qos$"
    with pytest.raises(ConfigError, match=expected):
        SlurmLauncher(clips_per_task=1).launch(plan, plan.tasks())
    assert read_submissions(run.paths) == []
    assert not list(run.paths.submissions.iterdir()), "nothing is left of it"


def test_later_refused_array_leaves_the_accepted_ones(
    run: MemoryRun, executor: type[FakeExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    executor.refused_arrays = {1}
    plan = run.plan()
    assert SlurmLauncher(clips_per_task=1).launch(plan, plan.tasks()) is not None
    (submission,) = read_submissions(run.paths)
    assert sorted(submission.tasks) == ["70_0", "70_1"]
    assert (
        "SLURM accepted 2 of 5 tasks and refused the rest: first line; Batch job submission failed: no such qos\n"
    ) in capsys.readouterr().err
    assert executor.num_arrays == 2, "the third array is not tried"


def test_missing_sbatch_is_a_configuration_error(run: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    plan = run.plan()
    with pytest.raises(ConfigError, match="launcher=slurm: there is no sbatch on this machine"):
        SlurmLauncher().launch(plan, plan.tasks())


@pytest.mark.parametrize(
    ("options", "available_bytes", "max_workers", "workers_per_shard"),
    [
        ({"gpus_per_node": 0}, None, 3, 1),
        ({"mem_gb": 8, "gpus_per_node": 2}, 4 * 10**9, 6, 2),
        ({"mem_gb": 8, "gpus_per_node": 2, "workers": 4}, 2 * 10**9, 12, 4),
        ({"mem_gb": 8, "memory_gb": 1.5}, 15 * 10**8, 3, 1),
        ({"array_parallelism": 2, "workers": 2}, None, 4, 2),
        ({"mem_per_gpu": "8G", "gpus_per_node": 2}, 8 * 10**9, 6, 2),
        ({"mem_per_gpu": "512M", "gpus_per_node": 0}, 5 * 10**8, 3, 1),
        ({"mem_per_cpu": "2GB", "cpus_per_task": 4}, 8 * 10**9, 3, 1),
        ({"gres": "shard:3,gpu:a100:2", "gpus_per_node": 0}, None, 6, 2),
    ],
)
def test_preview(
    run: MemoryRun, options: dict[str, Any], available_bytes: int | None, max_workers: int, workers_per_shard: int
) -> None:
    plan = run.plan()
    preview = SlurmLauncher(clips_per_task=2, **options).preview(plan, plan.tasks())
    assert sorted(each for shard in preview.shards for each in shard) == sorted(SIZES)
    assert (preview.available_bytes, preview.max_workers, preview.workers_per_shard) == (
        available_bytes, max_workers, workers_per_shard,
    )  # fmt: skip
    assert preview.script is not None
    assert re.search(r"^#SBATCH --array=0-2%", preview.script, re.MULTILINE)
    single = SlurmLauncher(clips_per_task=99, **options).preview(plan, plan.tasks())
    assert "--array" not in (single.script or "")
    assert single.max_workers == workers_per_shard


@pytest.mark.parametrize(("options", "expected"), [({}, 2), ({"workers": 2}, 2), ({"drawers": 3, "workers": 2}, 6)])
def test_drawers_of_a_task_are_previewed(run: MemoryRun, options: dict[str, int], expected: int) -> None:
    plan = run.plan()
    assert SlurmLauncher(cpus_per_task=4, **options).preview(plan, plan.tasks()).drawers_per_shard == expected  # type: ignore[arg-type]


def test_defaults_of_the_cluster_are_not_requested(run: MemoryRun) -> None:
    plan = run.plan()
    script = SlurmLauncher(gpus_per_node=0).preview(plan, plan.tasks()).script or ""
    requested = set(re.findall(r"^#SBATCH --([\w-]+)", script, re.MULTILINE))
    assert not requested & {"partition", "account", "qos", "constraint", "gpus-per-node", "mem", "wckey"}
    assert {"time", "cpus-per-task", "requeue", "signal", "job-name"} <= requested
    assert "#SBATCH --job-name=aot-ListedClips" in script


class FakeSupervisor:
    """Keeps how it was constructed, and what it was asked to do."""

    made: list[FakeSupervisor]

    def __init__(self, run: Any, slots: Any, limits: WorkerLimits, display: Any) -> None:
        self.slots, self.limits = slots, limits
        self.tasks: list[ClipTask] = []
        self.abandoned: list[tuple[str, bool]] = []
        self.by_scheduler: list[bool] = []
        self.attended_seconds = 0.0
        FakeSupervisor.made.append(self)

    def run(self, tasks: list[ClipTask]) -> None:
        self.tasks = tasks

    def abandon(self, reason: str, *, is_time_limit: bool, by_scheduler: bool) -> None:
        self.abandoned.append((reason, is_time_limit))
        self.by_scheduler.append(by_scheduler)


class FakeEnvironment:
    job_id = "7_1"


@pytest.fixture
def on_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    FakeSupervisor.made = []
    monkeypatch.setattr(launcher_module, "Supervisor", FakeSupervisor)
    monkeypatch.setattr(launcher_module, "JobEnvironment", FakeEnvironment)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    for number in handlers:
        signal.signal(number, signal.SIG_IGN)  # a task that does not handle it must not end the tests
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("on_node")
def test_task_processes_what_is_still_missing(run: MemoryRun) -> None:
    plan = run.plan()
    task = Task(plan.context, tuple(plan.tasks()[:3]), 2, WorkerLimits(9, 2.5), 600, drawers=3)
    run.finish("a")
    task()
    (supervisor,) = FakeSupervisor.made
    assert [each.clip.clip_id for each in supervisor.tasks] == ["b", "c"]
    assert supervisor.limits == WorkerLimits(9, 2.5, "7_1")
    assert [slot.is_drawer for slot in supervisor.slots] == [False] * 2 + [True] * 6


@pytest.mark.usefixtures("on_node")
def test_requeued_task_counts_what_its_first_start_left_open(run: MemoryRun) -> None:
    plan = run.plan()
    settings = {"rung": 1, "frame_interval": 1, "lean": False}
    for clip_id, slurm_task in {"a": "7_1", "b": "7_2"}.items():
        own = plan.fingerprints[clip_id].digest
        ledger = Ledger(run.paths, f"{slurm_task}.elsewhere-9-0", scheduler_task=slurm_task)
        ledger.append("started", clip_id=clip_id, content=own, host="elsewhere", **settings)
    Task(plan.context, tuple(plan.tasks()), 1, WorkerLimits(9, None), 600)()
    kinds = {each.clip.clip_id: [attempt.kind for attempt in each.attempts] for each in FakeSupervisor.made[0].tasks}
    assert kinds == {"a": ["lost"], "b": [], "c": [], "d": [], "e": []}


@pytest.mark.usefixtures("on_node")
@pytest.mark.parametrize(
    ("seconds", "reason", "is_time_limit"),
    [(599.0, "its task was preempted", False), (600.0, "its task reached its time limit", True)],
)
def test_task_that_is_interrupted_abandons_its_clips_and_is_submitted_again(
    run: MemoryRun, seconds: float, reason: str, is_time_limit: bool
) -> None:
    plan = run.plan()
    task = Task(plan.context, tuple(plan.tasks()), 2, WorkerLimits(9, 2.5), 600, drawers=3)
    first = task.checkpoint()
    assert first is not None
    assert first.function == task, "before it has started: nothing to abandon"
    task()
    task._planning_seconds = 0.0
    FakeSupervisor.made[0].attended_seconds = seconds
    requeued = task.checkpoint()
    assert requeued is not None
    again = requeued.function
    assert FakeSupervisor.made[0].abandoned == [(reason, is_time_limit)]
    assert FakeSupervisor.made[0].by_scheduler == [True]
    assert (again.run, again.clip_tasks, again.workers, again.limits, again.limit_seconds, again.drawers) == (
        task.run, task.clip_tasks, task.workers, task.limits, task.limit_seconds, task.drawers,
    )  # fmt: skip
    assert again._supervisor is None, "it is pickled"
    os.kill(os.getpid(), signal.SIGTERM)  # SLURM sends it to a task that is requeued; the request must not be disturbed
    assert len(FakeSupervisor.made[0].abandoned) == 1


@pytest.mark.usefixtures("on_node")
def test_task_that_must_not_be_requeued_ends(run: MemoryRun) -> None:
    plan = run.plan()
    task = Task(plan.context, tuple(plan.tasks()), 2, WorkerLimits(9, 2.5), 600, is_requeued=False)
    task()
    FakeSupervisor.made[0].attended_seconds = 600.0
    assert task.checkpoint() is None
    assert FakeSupervisor.made[0].abandoned == [("its task reached its time limit", True)]


@pytest.mark.usefixtures("on_node")
@pytest.mark.parametrize(
    ("seconds", "reason", "is_time_limit"),
    [
        (60.0, "its task was cancelled, preempted or requeued", False),
        (700.0, "its task reached its time limit", True),
    ],
)
def test_task_that_is_terminated_abandons_its_clips(
    run: MemoryRun, seconds: float, reason: str, is_time_limit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def process(supervisor: FakeSupervisor, tasks: list[ClipTask]) -> None:
        supervisor.attended_seconds = seconds
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(FakeSupervisor, "run", process)
    plan = run.plan()
    with pytest.raises(SystemExit) as stopped:
        Task(plan.context, tuple(plan.tasks()), 2, WorkerLimits(9, 2.5), 600)()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert FakeSupervisor.made[0].abandoned == [(reason, is_time_limit)]


@pytest.mark.usefixtures("on_node")
def test_time_of_planning_is_part_of_the_time_limit(run: MemoryRun) -> None:
    plan = run.plan()
    task = Task(plan.context, tuple(plan.tasks()), 2, WorkerLimits(9, 2.5), 600)
    task()
    assert 0 < task._planning_seconds < 60
    task._planning_seconds = 300.0
    FakeSupervisor.made[0].attended_seconds = 300.0
    task.checkpoint()
    assert FakeSupervisor.made[0].abandoned == [("its task reached its time limit", True)]


def test_signal_means_the_time_limit_from_the_moment_at_which_slurm_may_send_it(run: MemoryRun) -> None:
    launcher = SlurmLauncher(timeout_min=10, signal_delay_s=30)
    assert launcher._limit_seconds == 600 - 30 - 90 - 30


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("time", "timeout_min"), ("signal", "signal_delay_s"), ("requeue", "requeue"), ("no-requeue", "requeue"),
        ("array", "array_parallelism"),
    ],
)  # fmt: skip
def test_options_of_sbatch_that_have_a_name_of_their_own_are_refused(name: str, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^launcher\.additional_parameters: {name} is set by launcher\.{option}, "):
        SlurmLauncher(additional_parameters={name: "1"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"gres": "gpu:2"},
            "launcher.gres=gpu:2 and launcher.gpus_per_node=1 both request GPUs; add launcher.gpus_per_node=0",
        ),
        (
            {"mem_gb": 8.0, "mem_per_cpu": "2G"},
            "launcher.mem_gb=8.0, launcher.mem_per_cpu=2G: expected one of them, because each requests the main memory "
            "of a task; leave out the others",
        ),
        ({"mem_per_gpu": "32"}, "launcher.mem_per_gpu=32: expected a number with a unit, such as 32G or 512M"),
        (
            {"additional_parameters": {"exclusive": False}},
            "launcher.additional_parameters: exclusive=false: options of sbatch cannot be false; leave it out, or use "
            "the option that means the opposite",
        ),
    ],
)
def test_requests_that_contradict_each_other_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        SlurmLauncher(**options)
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    ("gres", "num_gpus"),
    [
        (None, 0), ("gpu", 1), ("gpu:4", 4), ("gpu:a100", 1), ("gpu:a100:3", 3), ("gres/gpu=2", 2),
        ("gpu:a100:2(S:0-1)", 2), ("shard:8", 0), ("craynetwork:1,gpu:v100:1,gpu:2", 3),
    ],
)  # fmt: skip
def test_gpus_in_generic_resources(gres: str | None, num_gpus: int) -> None:
    assert launcher_module._num_gpus(gres) == num_gpus


def test_submissions_are_read_in_their_order(run: MemoryRun) -> None:
    first = Submission(run.paths.submissions / "20260101-1", {"9_0": ("a", "b"), "10_0": ("c",), "10_1": ("d",)})
    second = Submission(run.paths.submissions / "20260102-1", {"11": ("e",)})
    second.save()
    first.save()
    assert read_submissions(run.paths) == [first, second]
    assert first.jobs == ["9", "10"]
    assert second.log("11") == second.folder / "11_0_log.out"
