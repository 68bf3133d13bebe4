"""Workers that die or hang while they read a clip ahead: the clip that was read is charged, or none is."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from aot.system.processes import is_alive
from tests.faults.commands import Command
from tests.launching.clips import Clips, assert_same_results
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LENGTHS = {"a": 5, "b": 7, "c": 9}


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, LENGTHS)


def fault(clips: Clips, action: str, *, only_ahead: bool = True, during: str = "wait") -> list[str]:
    """Arguments: something happens when clip b is opened; ahead, when the tracker of clip a performs an action."""
    clips.inject("a", during)
    after = clips.script / f"{LENGTHS['a']}.0.{during}"
    scripted = {"clip": "b", "action": action, "only_ahead": only_ahead, "after": after}
    return ["decoder=scripted", *(f"decoder.{name}={value}" for name, value in scripted.items())]


def events(clips: Clips, *kinds: str) -> list[tuple[str, str]]:
    return [(event["event"], event["clip_id"]) for event in clips.events(*kinds)]


def test_clip_whose_reading_crashes_is_charged_and_the_computed_one_is_not(clips: Clips) -> None:
    """The stack of the thread that crashed is in the log."""
    assert clips.run(*fault(clips, "segfault")) == 0
    assert clips.attempts("a") == [(1, None)]
    assert clips.attempts("b") == [(1, "crash"), (1, None)]
    assert events(clips, "died", "interrupted") == [("died", "b"), ("interrupted", "a")]
    clips.assert_none_lost()


def test_clip_that_always_crashes_fails_and_no_other(clips: Clips) -> None:
    assert clips.run(*fault(clips, "segfault", only_ahead=False)) == 1
    assert clips.attempts("b") == [(1, "crash"), (1, "crash")]
    assert clips.attempts("a") == clips.attempts("c") == [(1, None)]
    clips.assert_none_lost(failed={"b"})


@pytest.mark.parametrize("action", ["kill", pytest.param("hang", marks=pytest.mark.long)])
def test_none_is_charged_where_the_guilty_thread_is_not_known(clips: Clips, action: str) -> None:
    """Quick counterpart of the call that holds the GIL: the test of a stalled process in
    tests/launching/test_reading_ahead.py."""
    assert clips.run(*fault(clips, action), "launcher.stall_seconds=3") == 0
    assert clips.attempts("a") == clips.attempts("b") == [(1, None)]
    assert events(clips, "died", "interrupted") == [("interrupted", "a")]
    assert ", while b was read ahead" in clips.events("interrupted")[0]["reason"]
    clips.assert_none_lost()


def test_reading_that_hangs_holds_up_only_its_own_clip(clips: Clips) -> None:
    assert clips.run(*fault(clips, "sleep", during="nothing"), "launcher.stall_seconds=3") == 0
    assert clips.attempts("a") == [(1, None)]
    assert clips.attempts("b") == [(1, "stall"), (1, None)]
    assert events(clips, "died", "interrupted") == [("died", "b")]
    clips.assert_none_lost()


def test_clips_that_are_read_ahead_have_the_results_of_others(clips: Clips, tmp_path: Path) -> None:
    assert clips.run("tracker=lucas_kanade", "launcher.workers=1") == 0
    assert events(clips, "reading ahead") == [("reading ahead", "b"), ("reading ahead", "c")]
    local = clips.root
    local.rename(tmp_path / "local")
    assert clips.run("tracker=lucas_kanade", "launcher=inline", "dataset.include=[b]") == 0
    assert events(clips, "reading ahead") == []
    assert clips.run("tracker=lucas_kanade", "launcher=inline") == 0
    assert_same_results(tmp_path / "local", clips.root)


@pytest.mark.parametrize("launcher", ["local", "inline"])
def test_interrupt_while_a_clip_is_read_ahead(clips: Clips, launcher: str) -> None:
    """Even if reading hangs, the command ends, and a later one computes the clips."""
    with Command(clips, *fault(clips, "sleep"), f"launcher={launcher}") as command:
        wait_until(lambda: clips.was_injected("a", 0, "wait") and bool(clips.events("reading ahead")))
        worker = clips.worker()
        command.send_signal(signal.SIGINT)
        assert command.wait() == 130
    assert not is_alive(worker)
    assert clips.run() == 0
    assert clips.attempts("a") == clips.attempts("b") == [(1, None)]
    clips.assert_none_lost()
