"""Faults of real SLURM tasks: afterwards every clip has a complete result or a failure, none is lost or computed twice,
and the waiting command exits."""

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
from aot.runs.ledger import SILENT_SECONDS
from aot.runs.parts import PartSweeper
from aot.status import main as status
from aot.system.processes import is_alive
from tests.faults.commands import Command
from tests.faults.devcluster import POLL_SECONDS, Devcluster, require_devcluster
from tests.launching.clips import Clips, assert_same_results
from tests.waiting import wait_until

# In one process: there is one cluster, and its faults would disturb another test.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

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
    """The "started" event of a worker that blocks in the middle of a clip."""
    wait_until(lambda: clips.was_injected(clip_id, 0, "wait"))
    return next(event for event in clips.starts() if event["clip_id"] == clip_id)


def sweep(clips: Clips) -> None:
    """Delete the part files of dead workers, as a command does that has seen their ledgers silent for long enough."""
    now = [0.0]
    parts = PartSweeper(clips.paths, lambda: now[0])
    now[0] += SILENT_SECONDS
    parts.sweep()


def test_results_of_four_nodes_equal_inline_results(cluster: Devcluster, tmp_path: Path) -> None:
    clips = Clips(tmp_path, {f"day{number % 3}/c{number:02}": 4 + number % 5 for number in range(12)})
    arguments = ["launcher.clips_per_task=3", "launcher.cpus_per_task=4", "launcher.gpus_per_node=2"]
    assert clips.run(*SLURM, *arguments) == 0
    clips.assert_none_lost()
    started = clips.starts()
    assert sorted(event["clip_id"] for event in started) == sorted(clips.lengths), "no clip is computed twice"
    assert {event["host"] for event in started} == {"n1", "n2", "n3", "n4"}
    assert {event["gpu"] for event in started} == {"0", "1"}, "one worker per GPU"
    assert clips.run("launcher=inline", f"output.root={tmp_path / 'inline'}") == 0
    (inline,) = (tmp_path / "inline" / "videos").iterdir()
    assert_same_results(clips.root, inline)


def test_killed_task_is_resubmitted_although_slurm_refuses_twice(
    cluster: Devcluster, clips: Clips, tmp_path: Path
) -> None:
    refusals, shim = tmp_path / "refusals", tmp_path / "bin" / "sbatch"
    refusals.touch()
    shim.parent.mkdir()
    shim.write_text(
        f"#!/bin/sh\nif [ -s {refusals} ]; then\n"
        f"  truncate -s -1 {refusals}; echo 'error: Socket timed out' >&2; exit 1\nfi\n"
        f'exec {shutil.which("sbatch")} "$@"\n'
    )
    shim.chmod(0o755)
    clips.inject("d", "wait")
    with Command(clips, *SLURM, environment={"PATH": f"{shim.parent}:{os.environ['PATH']}"}) as command:
        worker = waiting_worker(clips, "d")
        refusals.write_text("..")
        supervisor = int(Path(f"/proc/{worker['pid']}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(supervisor, signal.SIGKILL)
        assert command.wait() == 0
    assert command.output.count("SLURM refused the tasks") == 2
    sweep(clips)
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, "lost"), (1, None)]
    assert "ended as FAILED" in clips.events("died")[0]["error"]


def test_task_beyond_its_memory_limit_moves_the_clip_up_the_ladder(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("b", "exhaust_memory", "exhaust_memory")
    assert clips.run(*SLURM) == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, "oom"), (2, "oom"), (3, None)]
    assert aot.load(clips.paths.clip("b").result).attributes["frame_interval"] == 2


def test_preempted_task_resumes_with_the_missing_clips(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("c", "wait")  # before b in its task
    with Command(clips, *SLURM) as command:
        first = waiting_worker(clips, "c")
        wait_until(lambda: clips.done() == ["a", "d"])  # the other task has ended
        job = cluster.preempt_all()
        assert command.is_running()
        cluster.cancel(job)
        assert command.wait() == 0
    clips.assert_none_lost()
    assert clips.attempts("c") == [(1, None)], "preemption is no fault of the clip"
    again = [event for event in clips.starts() if event["clip_id"] == "c"]
    assert [event["task"] for event in again] == [first["task"]] * 2, "the same task, requeued"
    assert "preempted" in clips.events("interrupted")[0]["reason"]
    assert clips.done() == sorted(LENGTHS), "finished clips are kept"


@pytest.mark.long  # a time limit of SLURM is at least one minute
def test_timed_out_task_resumes_with_the_missing_clips(cluster: Devcluster, clips: Clips) -> None:
    """Quick counterparts: test_killed_task_is_resubmitted_although_slurm_refuses_twice, and the time limits in
    tests/launching/slurm."""
    clips.inject("c", "wait")
    with Command(clips, *SLURM, "launcher.timeout_min=1", "launcher.signal_delay_s=40") as command:
        waiting_worker(clips, "c")
        assert command.wait() == 0
    clips.assert_none_lost()
    # The repeated task has only 20 s as well, which a busy machine may exceed: then it times out again.
    *lost, last = clips.attempts("c")
    assert (set(lost), last) == ({(1, "lost")}, (1, None))
    assert len(lost) == clips.started().count("c") - 1, "every start has one end"
    assert clips.done() == sorted(LENGTHS), "finished clips are kept"


def test_task_cancelled_while_pending_is_not_reported_as_lost(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("d", "wait")
    with Command(clips, *SLURM, "launcher.array_parallelism=1") as command:
        waiting_worker(clips, "d")
        (pending,) = cluster.tasks("PENDING")
        cluster.cancel(pending)
        clips.release()
        assert command.wait() == 1
    _, failed = clips.outcome()
    assert len(failed) == 2
    clips.assert_none_lost(failed=failed)
    assert {clips.failure(clip_id)["class"] for clip_id in failed} == {"cancelled"}
    assert clips.run(*SLURM) == 0, "the same command retries cancelled clips"
    clips.assert_none_lost()
    assert clips.done() == sorted(LENGTHS)


@pytest.mark.parametrize(
    "kill_processes",
    [pytest.param(True, marks=pytest.mark.long, id="processes killed"), pytest.param(False, id="processes alive")],
)
def test_lost_node(cluster: Devcluster, clips: Clips, kill_processes: bool) -> None:
    """A clip of a worker that still lives is left to it. A dead one is noticed by its silent ledger, after 90 s.

    Quick counterpart of "processes killed": test_killed_task_is_resubmitted_although_slurm_refuses_twice.
    """
    clips.inject("d", "wait")
    with Command(clips, *SLURM) as command:
        worker = waiting_worker(clips, "d")
        pid = int(str(worker["pid"]))
        supervisor = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        cluster.kill_node(str(worker["host"]), *([supervisor] if kill_processes else []))
        if kill_processes:
            wait_until(lambda: clips.started().count("d") == 2, 300.0)
        else:
            wait_until(lambda: clips.started().count("a") == 1)  # the requeued task takes the other clip of its shard
        clips.release()  # from here the original of the requeued task continues as well
        assert command.wait() == 0
        pids = {event["pid"] for event in clips.events("started")}
        wait_until(lambda: not any(is_alive(pid) for pid in pids))
    sweep(clips)
    clips.assert_none_lost()
    assert clips.attempts("d") == ([(1, "lost"), (1, None)] if kill_processes else [(1, None)])
    assert clips.started().count("d") == (2 if kill_processes else 1)
    assert clips.started().count("a") == 1


@pytest.mark.parametrize("by", ["scancel", "aot.cancel"])
def test_cancelled_array_is_restarted(cluster: Devcluster, clips: Clips, by: str) -> None:
    clips.inject("d", "wait")
    with Command(clips, *SLURM, "launcher.array_parallelism=1") as command:
        task = str(waiting_worker(clips, "d")["task"])
        if by == "scancel":
            cluster.cancel(task.partition("_")[0])
        else:
            assert cancel([str(clips.root)]) == 0
        assert command.wait() == 1
    complete, failed = clips.outcome()
    assert complete | failed == set(LENGTHS)
    assert complete & failed == set()
    assert {clips.failure(clip_id)["class"] for clip_id in failed} == {"cancelled"}
    assert clips.run("launcher=inline") == 0, "another launcher can complete the run"
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, None)], "a cancelled attempt does not count"


def test_task_that_is_cancelled_while_no_command_waits_does_not_count(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("d", "wait")
    assert clips.run(*SLURM, "launcher.wait=false", "launcher.clips_per_task=4") == 0
    task = str(waiting_worker(clips, "d")["task"])
    cluster.cancel(task.partition("_")[0])
    wait_until(lambda: not cluster.states(), interval_seconds=POLL_SECONDS)
    (interrupted,) = clips.events("interrupted")
    assert (interrupted["clip_id"], interrupted["is_counted"]) == ("d", False)
    assert clips.run("launcher=inline") == 0
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, None)]


def test_second_command_joins_tasks_of_a_command_that_did_not_wait(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("d", "wait")
    with Command(clips, *SLURM, "launcher.wait=false") as command:
        assert command.wait() == 0
        assert f"python -m aot.status {clips.root}" in command.output
    waiting_worker(clips, "d")
    with Command(clips, *SLURM) as command:
        clips.release()
        assert command.wait() == 0
    clips.assert_none_lost()
    assert sorted(clips.started()) == sorted(LENGTHS), "nothing was submitted twice"


def test_status_and_cancel_of_tasks_without_a_waiting_command(
    cluster: Devcluster, clips: Clips, capsys: pytest.CaptureFixture[str]
) -> None:
    clips.inject("d", "wait")
    assert clips.run(*SLURM, "launcher.wait=false", "launcher.array_parallelism=1") == 0
    worker = waiting_worker(clips, "d")
    capsys.readouterr()
    assert status([str(clips.root)]) == 0
    shown = capsys.readouterr().out
    assert "1 running, 3 pending" in shown
    assert "SLURM tasks: 1 running, 1 pending" in shown or "SLURM tasks: 1 pending, 1 running" in shown
    assert f"{worker['host']}  " in shown
    assert cancel([str(clips.root)]) == 0
    assert "cancelled 2 SLURM tasks" in capsys.readouterr().out
    wait_until(lambda: not cluster.states(), interval_seconds=POLL_SECONDS)
    assert clips.run(*SLURM, "launcher.clips_per_task=4") == 0
    clips.assert_none_lost()
    assert clips.attempts("d") == [(1, None)], "a cancelled attempt does not count"


def test_ctrl_c_while_waiting_does_not_cancel_tasks(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("d", "wait")
    with Command(clips, *SLURM, "launcher.clips_per_task=4") as command:
        waiting_worker(clips, "d")
        command.send_signal(signal.SIGINT)
        assert command.wait() == 130
        assert f"the tasks continue without this command: python -m aot.status {clips.root}" in command.output
    clips.release()
    wait_until(lambda: not cluster.states(), interval_seconds=POLL_SECONDS)
    clips.assert_none_lost()


def test_sweep_submits_all_runs_before_it_waits(cluster: Devcluster, clips: Clips) -> None:
    clips.inject("d", "wait", "wait")
    (clips.folder / "clips" / "a.mp4").write_text("not a video")
    with Command(
        clips, "-m", "frame_interval=1,2", *SLURM, "launcher.clips_per_task=4", "launcher.gpus_per_node=0"
    ) as command:
        wait_until(lambda: clips.was_injected("d", 1, "wait"))  # once per run: tasks of both runs are running
        clips.release()
        assert command.wait() == 1
    runs = list((clips.folder / "outputs" / "videos").glob("sweep-*/*"))
    assert len(runs) == 2
    for run in runs:
        assert sorted(path.stem for path in (run / "clips").iterdir()) == ["b", "c", "d"]
        assert [path.stem for path in (run / "failures").iterdir()] == ["a"]


def test_sbatch_array_divides_a_run_into_shards(cluster: Devcluster, clips: Clips) -> None:
    script = Path(__file__).parents[2] / "launch" / "sbatch_array.sh"
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        ["sbatch", "--wait", "--array=1-2", "--cpus-per-task=1", "--mem=1G", str(script), *clips.arguments()],
        cwd=clips.folder,
        env=environment,
        check=True,
        timeout=240,
    )
    clips.assert_none_lost()
    assert clips.done() == sorted(LENGTHS), "no clip is computed twice"


def test_submission_refused_by_slurm_exits_2(
    cluster: Devcluster, clips: Clips, capfd: pytest.CaptureFixture[str]
) -> None:
    assert clips.run(*SLURM, "launcher.gpus_per_node=99") == 2
    assert "SLURM refused the tasks" in capfd.readouterr().err
    assert clips.events("started") == []
