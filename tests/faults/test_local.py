"""Faults of local worker processes: afterwards every clip has a complete result or a failure, and none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import aot
from aot.system.processes import is_alive
from tests.faults.commands import Command
from tests.launching.clips import Clips
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LENGTHS = {"a": 5, "b": 7, "c": 9, "d": 11}


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, LENGTHS)


@pytest.mark.parametrize(
    ("actions", "attempts"),
    [
        pytest.param(["kill"], [(1, "lost"), (1, None)], marks=pytest.mark.long),
        pytest.param(["kill"] * 9, [(1, "lost")] * 4, marks=pytest.mark.long),
        pytest.param(["segfault"], [(1, "crash"), (1, None)], marks=pytest.mark.long),
        (["segfault"] * 9, [(1, "crash")] * 2),
        (["memory_error", "kill", "memory_error"], [(1, "oom"), (2, "lost"), (2, "oom"), (3, None)]),
    ],
)
def test_crashed_worker_is_replaced_and_the_attempt_counts(
    clips: Clips, actions: list[str], attempts: list[tuple[int, str | None]]
) -> None:
    """Quick counterparts: test_error_class_of_a_dead_process and test_clip_fails_when_its_attempts_are_used_up in
    tests/launching/test_supervisor.py."""
    clips.inject("b", *actions)
    is_complete = attempts[-1][1] is None
    assert clips.run() == (0 if is_complete else 1)
    assert clips.attempts("b") == attempts
    clips.assert_none_lost(failed=set() if is_complete else {"b"})
    assert clips.started().count("c") == 1, "other clips are not repeated"
    if not is_complete:
        failure = clips.failure("b")
        assert failure["class"] == attempts[-1][1]
        assert Path(failure["log"]).is_file()
        assert ("SIGKILL" in failure["message"]) == (actions[-1] == "kill")


@pytest.mark.parametrize("action", ["hang", pytest.param("sleep", marks=pytest.mark.long)])
def test_hung_worker_is_replaced(clips: Clips, action: str) -> None:
    """Quick counterpart: test_heartbeats_count_only_if_the_process_uses_the_cpu in test_supervisor.py."""
    clips.inject("b", action)
    assert clips.run("launcher.stall_seconds=3") == 0
    assert clips.attempts("b") == [(1, "stall"), (1, None)]
    (died,) = clips.events("died")
    assert "no activity for 3 s" in died["error"]
    clips.assert_none_lost()


@pytest.mark.long
def test_worker_that_computes_without_reporting_is_not_stalled(clips: Clips) -> None:
    """Quick counterpart: test_heartbeats_count_only_if_the_process_uses_the_cpu in test_supervisor.py."""
    clips.inject("b", "compute")
    assert clips.run("launcher.stall_seconds=2") == 0
    assert clips.attempts("b") == [(1, None)]


@pytest.mark.long
def test_worker_memory_limit_moves_the_clip_up_the_ladder(tmp_path: Path) -> None:
    """Quick counterparts: test_attempts_that_follow_an_error in tests/launching/test_worker.py, and
    test_uncaught_memory_error_moves_the_clip_up_the_ladder below, which has a real limit."""
    clips = Clips(tmp_path, {"small": 6, "large": 200}, width=640, height=480)
    # 200 frames of 640x480 are 737 MB as float32 and 184 MB as uint8; a worker itself takes 0.4 GB.
    assert clips.run("tracker=whole_clip", "launcher.memory_gb=0.85", "segmenter.propagate=false") == 0
    assert clips.attempts("small") == [(1, None)]
    assert clips.attempts("large") == [(1, "oom"), (2, None)]
    result = aot.load(clips.paths.clip("large").result)
    assert (len(result.index), result.attributes["frame_interval"]) == (200, 1), "the lean plan keeps all frames"


def test_uncaught_memory_error_moves_the_clip_up_the_ladder(clips: Clips) -> None:
    clips.inject("b", "exhaust_memory")
    assert clips.run("launcher.memory_gb=0.6") == 0
    assert clips.attempts("b") == [(1, "oom"), (2, None)]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_interrupted_command_abandons_the_current_clip_cleanly(clips: Clips, number: signal.Signals) -> None:
    """Quick counterparts: test_interrupted_clips_are_recorded_and_do_not_count in test_supervisor.py, and
    test_ctrl_c_and_sigterm_end_the_command in test_run_outcomes.py."""
    clips.inject("b", "wait")
    with Command(clips, "launcher.workers=1") as command:
        wait_until(lambda: clips.was_injected("b", 0, "wait"))
        worker = clips.worker()
        command.send_signal(number)
        assert command.wait() == 130
        assert "Run the same command again to resume" in command.output
    assert not is_alive(worker)
    complete, failed = clips.outcome()
    assert (complete, failed) == ({"a"}, set())
    assert clips.events("interrupted")[0]["clip_id"] == "b"
    assert clips.run("launcher=inline") == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, None)], "an interrupted attempt does not count"


def test_workers_of_a_killed_command_exit_and_the_attempt_counts(clips: Clips) -> None:
    clips.inject("b", "wait")
    with Command(clips, "launcher.workers=1") as command:
        wait_until(lambda: clips.was_injected("b", 0, "wait"))
        worker = clips.worker()
        command.send_signal(signal.SIGKILL)
        assert command.wait() == -9
    wait_until(lambda: not is_alive(worker))
    for path in clips.root.rglob("*.h5"):
        aot.load(path)
    assert clips.run("launcher=inline") == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, "lost"), (1, None)]
    assert clips.started().count("a") == 1


def test_the_command_does_not_import_models(clips: Clips) -> None:
    code = (
        "import sys; from aot.run import main; code = main(sys.argv[1:]); "
        "sys.exit(code or bool({'torch', 'sam2'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *clips.arguments("tracker=lucas_kanade")]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_run_fails_if_workers_cannot_start(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert clips.run("launcher.workers=1") == 1
    assert clips.events("started") == []
