"""Real SLURM tasks: whatever happens to them, every clip is whole or in failures/, none twice, none lost, and the
waiting command ends by itself."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aot
from aot.cancel import main as cancel
from aot.status import main as status
from aot.system.processes import is_alive
from tests.faults.commands import Command
from tests.faults.devcluster import Devcluster, require_devcluster
from tests.launching.clips import Clips, assert_same_results
from tests.waiting import until

LENGTHS = {"a": 5, "b": 7, "c": 9, "d": 11}
SLURM = [
    "launcher=slurm", "launcher.poll_seconds=1", "launcher.clips_per_task=2", "launcher.cpus_per_task=2",
    "launcher.mem_gb=1",
]  # fmt: skip


@pytest.fixture
def cluster() -> Iterator[Devcluster]:
    with require_devcluster() as cluster:
        yield cluster


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, LENGTHS)


def waiting_worker(clips: Clips, clip_id: str) -> dict[str, object]:
    """The "started" event of a worker that waits in the middle of a clip."""
    until(lambda: clips.has_happened(clip_id, 0, "wait"))
    return next(event for event in clips.events("started") if event["clip_id"] == clip_id)


def test_clips_over_four_nodes_give_what_inline_gives(cluster: Devcluster, tmp_path: Path) -> None:
    clips = Clips(tmp_path, {f"day{number % 3}/c{number:02}": 4 + number % 5 for number in range(24)})
    arguments = ["launcher.clips_per_task=6", "launcher.cpus_per_task=4", "launcher.gpus_per_node=2"]
    assert clips.run(*SLURM, *arguments) == 0
    clips.assert_none_lost()
    started = clips.events("started")
    assert sorted(event["clip_id"] for event in started) == sorted(clips.lengths), "none twice"
    assert {event["host"] for event in started} == {"n1", "n2", "n3", "n4"}
    assert {event["gpu"] for event in started} == {"0", "1"}, "one worker a GPU"
    assert clips.run("launcher=inline", f"output.root={tmp_path / 'inline'}") == 0
    (inline,) = (tmp_path / "inline" / "videos").iterdir()
    assert_same_results(clips.root, inline)


def test_a_killed_task_is_submitted_again(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM) as command:
        worker = waiting_worker(clips, "d")
        supervisor = int(Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        assert command.ends() == 0
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, "lost"), (1, None)]
    assert "ended as FAILED" in clips.events("died")[0]["error"]


def test_a_refused_resubmission_is_tried_again(cluster: Devcluster, clips: Clips, tmp_path: Path) -> None:
    refusals, shim = tmp_path / "refusals", tmp_path / "bin" / "sbatch"
    refusals.touch()
    shim.parent.mkdir()
    shim.write_text(
        f"#!/bin/sh\nif [ -s {refusals} ]; then\n"
        f"  truncate -s -1 {refusals}; echo 'error: Socket timed out' >&2; exit 1\nfi\n"
        f'exec {shutil.which("sbatch")} "$@"\n'
    )
    shim.chmod(0o755)
    clips.happens("d", "wait")
    with Command(clips, *SLURM, environment={"PATH": f"{shim.parent}:{os.environ['PATH']}"}) as command:
        worker = waiting_worker(clips, "d")
        refusals.write_text("..")
        supervisor = int(Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        assert command.ends() == 0
    assert command.output.count("SLURM refused the tasks") == 2
    clips.assert_none_lost()


def test_a_task_beyond_its_memory_climbs_the_ladder(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("b", "eat", "eat")
    assert clips.run(*SLURM) == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, "oom"), (2, "oom"), (3, None)]
    assert aot.load(clips.paths.clip("b").result).attributes["frame_interval"] == 2


def test_a_preempted_task_goes_on_with_what_is_missing(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("c", "wait")  # the second of its task
    with Command(clips, *SLURM) as command:
        first = waiting_worker(clips, "c")
        job = cluster.take_all_nodes()
        assert command.is_running()
        cluster.cancel(job)
        assert command.ends() == 0
    clips.assert_none_lost()
    assert clips.attempts("c") == [(1, "lost"), (1, None)]
    again = [event for event in clips.events("started") if event["clip_id"] == "c"]
    assert [event["task"] for event in again] == [first["task"]] * 2, "the same task, requeued"
    assert "preempted" in clips.events("interrupted")[0]["reason"]
    assert clips.done() == sorted(LENGTHS), "what was finished stays"


def test_a_task_that_times_out_goes_on_with_what_is_missing(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("c", "wait")
    with Command(clips, *SLURM, "launcher.timeout_min=1", "launcher.signal_delay_s=40") as command:
        waiting_worker(clips, "c")
        assert command.ends() == 0
    clips.assert_none_lost()
    assert clips.attempts("c") == [(1, "lost"), (1, None)]
    assert clips.done() == sorted(LENGTHS), "what was finished stays"


def test_a_task_cancelled_while_pending_is_told_from_a_lost_one(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM, "launcher.array_parallelism=1") as command:
        waiting_worker(clips, "d")
        (pending,) = cluster.tasks("PENDING")
        cluster.cancel(pending)
        clips.go()
        assert command.ends() == 1
    _, failed = clips.sort()
    assert len(failed) == 2
    clips.assert_none_lost(failed=failed)
    assert {clips.failure(clip_id)["class"] for clip_id in failed} == {"cancelled"}
    assert clips.run(*SLURM) == 0, "the same command takes them again"
    clips.assert_none_lost()
    assert clips.done() == sorted(LENGTHS)


@pytest.mark.parametrize("with_processes", [True, False], ids=["with all on it", "but its processes live"])
def test_a_lost_node(cluster: Devcluster, clips: Clips, with_processes: bool) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM) as command:
        worker = waiting_worker(clips, "d")
        pid = int(str(worker["pid"]))
        supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        cluster.lose(str(worker["host"]), *([supervisor] if with_processes else []))
        until(lambda: clips.started().count("d") == 2)
        clips.go()  # now the twin of the requeued task goes on too
        assert command.ends() == 0
        pids = {event["pid"] for event in clips.events("started")}
        until(lambda: not any(is_alive(pid) for pid in pids))
    clips.assert_none_lost()
    if with_processes:
        assert clips.attempts("d") == [(1, "lost"), (1, None)]


@pytest.mark.parametrize("by", ["scancel", "aot.cancel"])
def test_a_cancelled_array_is_started_again(cluster: Devcluster, clips: Clips, by: str) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM, "launcher.array_parallelism=1") as command:
        task = str(waiting_worker(clips, "d")["task"])
        if by == "scancel":
            cluster.cancel(task.partition("_")[0])
        else:
            assert cancel([str(clips.root)]) == 0
        assert command.ends() == 1
    whole, failed = clips.sort()
    assert whole | failed == set(LENGTHS)
    assert whole & failed == set()
    assert {clips.failure(clip_id)["class"] for clip_id in failed} == {"cancelled"}
    assert clips.run(*SLURM) == 0
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, None)], "what was cancelled counts for nothing"


def test_who_does_not_wait_comes_back_and_joins(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM, "launcher.wait=false") as command:
        assert command.ends() == 0
        assert f"python -m aot.status {clips.root}" in command.output
    waiting_worker(clips, "d")
    with Command(clips, *SLURM) as command:
        clips.go()
        assert command.ends() == 0
    clips.assert_none_lost()
    assert sorted(clips.started()) == sorted(LENGTHS), "nothing was submitted twice"


def test_what_nobody_waits_for_can_be_looked_at_and_cancelled(
    cluster: Devcluster, clips: Clips, capsys: pytest.CaptureFixture[str]
) -> None:
    clips.happens("d", "wait")
    assert clips.run(*SLURM, "launcher.wait=false", "launcher.array_parallelism=1") == 0
    worker = waiting_worker(clips, "d")
    capsys.readouterr()
    assert status([str(clips.root)]) == 0
    shown = capsys.readouterr().out
    assert "1 running, 3 pending" in shown
    assert "SLURM tasks: 1 running, 1 pending" in shown or "SLURM tasks: 1 pending, 1 running" in shown
    assert f"{worker['host']}  " in shown
    assert cancel([str(clips.root)]) == 0
    assert "ended 2 SLURM tasks" in capsys.readouterr().out
    until(lambda: not cluster.states())
    assert clips.run(*SLURM) == 0
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, None)], "what was cancelled counts for nothing"


def test_ctrl_c_while_waiting_leaves_the_tasks(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("d", "wait")
    with Command(clips, *SLURM) as command:
        waiting_worker(clips, "d")
        command.send(signal.SIGINT)
        assert command.ends() == 130
        assert f"the tasks go on without this command: python -m aot.status {clips.root}" in command.output
    clips.go()
    until(lambda: not cluster.states())
    clips.assert_none_lost()


def test_a_sweep_submits_everything_before_it_waits(cluster: Devcluster, clips: Clips) -> None:
    clips.happens("d", "wait", "wait")
    (clips.folder / "clips" / "a.mp4").write_text("not a video")
    with Command(clips, "-m", "frame_interval=1,2", *SLURM, "launcher.gpus_per_node=0") as command:
        until(lambda: clips.has_happened("d", 1, "wait"))  # one in each run: both are in the hands of tasks
        clips.go()
        assert command.ends() == 1
    runs = list((clips.folder / "outputs" / "videos").glob("sweep-*/*"))
    assert len(runs) == 2
    for run in runs:
        assert sorted(path.stem for path in (run / "clips").iterdir()) == ["b", "c", "d"]
        assert [path.stem for path in (run / "failures").iterdir()] == ["a"]


def test_an_array_of_ones_own_divides_a_run(cluster: Devcluster, clips: Clips) -> None:
    script = Path(__file__).parents[2] / "launch" / "sbatch_array.sh"
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        ["sbatch", "--wait", "--array=1-3", "--cpus-per-task=1", "--mem=1G", str(script), *clips.arguments()],
        cwd=clips.folder,
        env=environment,
        check=True,
        timeout=240,
    )
    clips.assert_none_lost()
    assert clips.done() == sorted(LENGTHS), "none twice"


def test_what_slurm_refuses_is_a_wrong_command(
    cluster: Devcluster, clips: Clips, capfd: pytest.CaptureFixture[str]
) -> None:
    assert clips.run(*SLURM, "launcher.gpus_per_node=99") == 2
    assert "SLURM refused the tasks" in capfd.readouterr().err
    assert clips.events("started") == []
