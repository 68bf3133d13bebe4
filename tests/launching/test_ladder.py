"""Attempts at a clip in one process: the memory ladder, repeated attempts, and what is recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

import aot
from tests.launching.clips import Clips


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, {"a": 5, "b": 9})


@pytest.mark.slow
def test_out_of_memory_goes_lean_and_then_drops_frames(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "memory_error", "memory_error", "memory_error")
    assert clips.run("launcher=inline") == 0
    result = aot.load(clips.paths.clip("b").result)
    assert result.index.tolist() == [0, 4, 8]
    assert (result.attributes["frame_interval_requested"], result.attributes["frame_interval"]) == (1, 4)
    assert clips.attempts("b") == [(1, "oom"), (2, "oom"), (3, "oom"), (4, None)]
    assert clips.attempts("a") == [(1, None)]
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("b "))
    assert line.split()[:6] == ["b", "done", "1", "20", "3", "4"], "the table shows the interval that was used"
    assert "b: ran out of memory; done on rung 4 of the ladder: lean, frame_interval 4" in shown


@pytest.mark.long
def test_ladder_ends_at_max_frame_interval(clips: Clips) -> None:
    """Quick counterparts: test_attempts_that_follow_an_error in test_worker.py, and
    test_attempts_since_the_last_end_come_with_the_task in test_plan.py."""
    clips.inject("a", *["memory_error"] * 9)
    assert clips.run("launcher=inline", "ladder.max_frame_interval=2") == 1
    failure = clips.failure("a")
    assert (failure["class"], failure["stage"], failure["frame_interval"]) == ("oom", "track", 2)
    assert [attempt["frame_interval"] for attempt in failure["attempts"]] == [1, 1, 2]
    clips.assert_none_lost(failed={"a"})
    assert clips.run("launcher=inline", "retry=[oom]", "ladder.max_frame_interval=2") == 1
    assert clips.attempts("a") == [(1, "oom"), (2, "oom"), (3, "oom")], "a requested retry starts on the first rung"


@pytest.mark.parametrize(
    ("actions", "exit_code", "attempts"),
    [
        pytest.param(["write_error"], 0, [(1, "write"), (1, None)], marks=pytest.mark.long),
        pytest.param(["write_error"] * 3, 1, [(1, "write"), (1, "write")], marks=pytest.mark.long),
        pytest.param(["tracking_error"], 1, [(1, "tracking")], marks=pytest.mark.long),
        (["write_error", "memory_error"], 0, [(1, "write"), (1, "oom"), (2, None)]),
    ],
)
def test_other_errors_are_repeated_once_or_never(
    clips: Clips, actions: list[str], exit_code: int, attempts: list[tuple[int, str | None]]
) -> None:
    """Quick counterpart: test_attempts_that_follow_an_error in test_worker.py."""
    clips.inject("a", *actions)
    assert clips.run("launcher=inline") == exit_code
    assert clips.attempts("a") == attempts
    assert clips.attempts("b") == [(1, None)]


@pytest.mark.slow
def test_rungs_that_cannot_fit_are_skipped(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "tests.faults.parts.ScriptedTracker.needed_bytes",
        lambda self, *, num_frames, lean, **size: 10**15 if num_frames > 3 or not lean else 0,
    )
    clips.inject("b", *["nothing"] * 9)
    assert clips.run("launcher=inline") == 0
    assert clips.attempts("b") == [(1, "oom"), (2, "oom"), (3, "oom"), (4, None)]
    assert clips.was_injected("b", 0, "nothing")
    assert not clips.was_injected("b", 1, "nothing"), "tracking started once"
