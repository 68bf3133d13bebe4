"""The progress of a run: one line per clip where there is no terminal, one live bar where there is one."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from aot.launching import display as display_module
from aot.launching.display import Display


def started(clip_id: str) -> dict[str, Any]:
    return {"event": "started", "clip_id": clip_id}


def done(clip_id: str, num_frames: int = 8) -> dict[str, Any]:
    return {"event": "done", "clip_id": clip_id, "summary": {"num_frames": num_frames}}


def ended(clip_id: str, state: str = "done", **details: str) -> dict[str, Any]:
    return {"event": "ended", "clip_id": clip_id, "state": state, **details}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in s, as a list of one value."""
    now = [100.0]
    monkeypatch.setattr(display_module.time, "perf_counter", lambda: now[0])
    return now


def test_failed_clip_is_one_line_without_the_advice(capsys: pytest.CaptureFixture[str]) -> None:
    message = "a.mp4: the file is truncated; copy it again\nsecond line"
    with Display(num_clips=2) as display:
        display.show_event(started("a"))
        display.show_event(ended("a", "failed", message=message))
        display.show_event(done("b"))
        display.show_event(ended("b"))
    failed, finished = capsys.readouterr().err.splitlines()
    assert failed == "a: failed · a.mp4: the file is truncated"
    assert finished.startswith("b: done · ")
    assert finished.endswith(" frames/s")


def test_rate_is_over_all_frames_since_the_start(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Display(num_clips=3) as display:
        for clip_id, now in {"a": 102.0, "b": 104.0}.items():
            clock[0] = now
            display.show_event(done(clip_id))
            display.show_event(ended(clip_id))
        display.show_event(ended("c", "partial"))
    assert capsys.readouterr().err.splitlines() == [
        "a: done · 4.0 frames/s", "b: done · 4.0 frames/s", "c: partial · 4.0 frames/s",
    ]  # fmt: skip


def test_only_the_end_of_a_clip_is_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(num_clips=2) as display:
        display.show_event(started("a"))
        display.show_progress("a", "track", 0.5)
        display.show_event({"event": "attempt failed", "clip_id": "a"})
        display.show_event({"event": "died", "clip_id": "a"})
        display.show_event({"event": "interrupted", "clip_id": "a"})
    assert capsys.readouterr().err == ""


class Terminal:
    """A display on a terminal, whose output is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, num_clips: int) -> None:
        self.text = io.StringIO()
        monkeypatch.setattr(
            display_module,
            "Console",
            lambda **options: Console(file=self.text, force_terminal=True, width=120, **{**options, "stderr": False}),
        )
        self.display = Display(num_clips)

    @property
    def now(self) -> str:
        """What the bar shows as current."""
        return str(self.display._progress.tasks[0].fields["now"])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    return Terminal(monkeypatch, num_clips=3)


def test_bar_shows_the_current_clip_and_its_stage(terminal: Terminal) -> None:
    display = terminal.display
    display.show_event(started("a"))
    assert terminal.now == "a"
    display.show_progress("a", "segment", 0.256)
    assert terminal.now == "a · segment  26%"
    display.show_event(started("b"))
    assert terminal.now == "2 workers · a · segment  26%"
    display.show_event(ended("a"))
    assert terminal.now == "b"
    display.show_event({"event": "died", "clip_id": "b"})
    assert terminal.now == ""
    display.show_event(started("c"))
    display.show_event({"event": "interrupted", "clip_id": "c"})
    assert terminal.now == ""


def test_long_ids_are_shortened_at_their_beginning(terminal: Terminal) -> None:
    terminal.display.show_event(started("x" * 10 + "y" * 28))
    assert terminal.now == "…" + "y" * 27
    terminal.display.show_event(ended("x" * 10 + "y" * 28))
    terminal.display.show_event(started("y" * 28))
    assert terminal.now == "y" * 28


def test_bar_counts_clips_and_only_failures_are_lines_above_it(terminal: Terminal, clock: list[float]) -> None:
    with terminal.display as display:
        clock[0] = 104.0
        display.show_event(done("a", 10))
        display.show_event(ended("a"))
        display.show_event(ended("b", "failed", message="[b] is broken; copy it again"))
    (task,) = display._progress.tasks
    assert (task.completed, task.total) == (2, 3)
    assert task.fields["rate"].endswith(" frames/s")
    shown = terminal.text.getvalue()
    assert "b: failed · [b] is broken\n" in shown.replace("\r", "")
    assert "a: done" not in shown
    assert "2/3" in shown
