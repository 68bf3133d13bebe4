"""Worker processes of one machine: whatever happens to them, every clip is whole or in failures/, and none is lost."""

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
from tests.launching.clips import Clips, assert_same_results
from tests.waiting import until

LENGTHS = {"a": 5, "b": 7, "c": 9, "d": 11}


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, LENGTHS)


def test_local_gives_what_inline_gives_and_loads_models_once(clips: Clips, tmp_path: Path) -> None:
    assert clips.run("launcher.workers=2") == 0
    workers = {event["worker"] for event in clips.events("started")}
    assert len({event["pid"] for event in clips.events("started")}) == len(workers) == 2
    assert clips.run("launcher=inline", f"output.root={tmp_path / 'inline'}") == 0
    (inline,) = (tmp_path / "inline" / "videos").iterdir()
    assert_same_results(clips.root, inline)


@pytest.mark.parametrize(
    ("actions", "attempts"),
    [
        (["kill"], [(1, "lost"), (1, None)]),
        (["kill"] * 9, [(1, "lost")] * 4),
        (["segfault"], [(1, "crash"), (1, None)]),
        (["segfault"] * 9, [(1, "crash")] * 2),
        (["memory_error", "kill", "memory_error"], [(1, "oom"), (2, "lost"), (2, "oom"), (3, None)]),
    ],
)
def test_a_child_that_dies_is_replaced_and_its_attempt_counts(
    clips: Clips, actions: list[str], attempts: list[tuple[int, str | None]]
) -> None:
    clips.happens("b", *actions)
    is_whole = attempts[-1][1] is None
    assert clips.run() == (0 if is_whole else 1)
    assert clips.attempts("b") == attempts
    clips.assert_none_lost(failed=set() if is_whole else {"b"})
    assert clips.started().count("c") == 1, "the others are not done twice"
    if not is_whole:
        failure = clips.failure("b")
        assert failure["class"] == attempts[-1][1]
        assert Path(failure["log"]).is_file()
        assert ("SIGKILL" in failure["message"]) == (actions[-1] == "kill")


@pytest.mark.parametrize("action", ["hang", "sleep"])
def test_a_child_that_stands_still_is_replaced(clips: Clips, action: str) -> None:
    clips.happens("b", action)
    assert clips.run("launcher.stall_seconds=3") == 0
    assert clips.attempts("b") == [(1, "stall"), (1, None)]
    (died,) = clips.events("died")
    assert "no sign of life for 3 s" in died["error"]
    clips.assert_none_lost()


def test_a_child_that_reports_nothing_but_computes_is_left_alone(clips: Clips) -> None:
    clips.happens("b", "compute")
    assert clips.run("launcher.stall_seconds=2") == 0
    assert clips.attempts("b") == [(1, None)]


def test_a_capped_worker_climbs_the_ladder(tmp_path: Path) -> None:
    clips = Clips(tmp_path, {"small": 6, "large": 200}, width=640, height=480)
    # 200 frames of 640x480 are 737 MB as float32 and 184 MB as bytes; besides, a worker takes 0.4 GB.
    assert clips.run("tracker=whole_clip", "launcher.memory_gb=0.85", "segmenter.propagate=false") == 0
    assert clips.attempts("small") == [(1, None)]
    assert clips.attempts("large") == [(1, "oom"), (2, None)]
    result = aot.load(clips.paths.clip("large").result)
    assert (len(result.index), result.attributes["frame_interval"]) == (200, 1), "the lean plan keeps all frames"


def test_memory_errors_that_nobody_catches_climb_too(clips: Clips) -> None:
    clips.happens("b", "eat")
    assert clips.run("launcher.memory_gb=0.6") == 0
    assert clips.attempts("b") == [(1, "oom"), (2, None)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_command_puts_away_what_it_has_in_hand(clips: Clips, number: signal.Signals) -> None:
    clips.happens("b", "wait")
    with Command(clips, "launcher.workers=1") as command:
        until(lambda: clips.has_happened("b", 0, "wait"))
        (child,) = {event["pid"] for event in clips.events("started")}
        command.send(number)
        assert command.ends() == 130
        assert "The same command goes on" in command.output
    assert not is_alive(child)
    whole, failed = clips.sort()
    assert (whole, failed) == ({"a"}, set())
    assert clips.events("interrupted")[0]["clip_id"] == "b"
    assert clips.run() == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, None)], "what the user stopped counts for nothing"


def test_a_killed_command_takes_its_children_along_and_its_attempt_counts(clips: Clips) -> None:
    clips.happens("b", "wait")
    with Command(clips, "launcher.workers=1") as command:
        until(lambda: clips.has_happened("b", 0, "wait"))
        (child,) = {event["pid"] for event in clips.events("started")}
        command.send(signal.SIGKILL)
        assert command.ends() == -9
    until(lambda: not is_alive(child))
    for path in clips.root.rglob("*.h5"):
        aot.load(path)
    assert clips.run() == 0
    clips.assert_none_lost()
    assert clips.attempts("b") == [(1, "lost"), (1, None)]
    assert clips.started().count("a") == 1


def test_the_command_itself_needs_no_models(clips: Clips) -> None:
    code = (
        "import sys; from aot.run import main; code = main(sys.argv[1:]); "
        "sys.exit(code or bool({'torch', 'sam2'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *clips.arguments("tracker=lucas_kanade")]
    assert subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_children_that_cannot_start_end_the_run(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    assert clips.run("launcher.workers=1") == 1
    assert clips.events("started") == []
