"""Tests of the progress lines that are printed where there is no terminal."""

from __future__ import annotations

import pytest

from aot.launching.display import Display


def test_failed_clip_is_one_line_without_the_advice(capsys: pytest.CaptureFixture[str]) -> None:
    message = "a.mp4: the file is truncated; copy it again\nsecond line"
    with Display(num_clips=2) as display:
        display.show_event({"event": "started", "clip_id": "a"})
        display.show_event({"event": "ended", "clip_id": "a", "state": "failed", "message": message})
        display.show_event({"event": "done", "clip_id": "b", "summary": {"num_frames": 8}})
        display.show_event({"event": "ended", "clip_id": "b", "state": "done"})
    failed, done = capsys.readouterr().err.splitlines()
    assert failed == "a: failed · a.mp4: the file is truncated"
    assert done.startswith("b: done · ")
    assert done.endswith(" frames/s")
