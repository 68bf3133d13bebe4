"""How far a run is, told from its folder; and ending what works on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aot.cancel import main as cancel
from aot.status import main as status
from aot.system.processes import host
from tests.faults.commands import Command
from tests.launching.clips import Clips
from tests.waiting import wait_until


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, {"a": 5, "b": 7, "c": 9})


def test_a_run_at_work_and_its_end(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "memory_error", "wait")
    with Command(clips) as command:
        wait_until(lambda: clips.was_injected("b", 1, "wait"))
        assert status([str(clips.root)]) == 0
        shown = capsys.readouterr().out
        assert "3 clips: 1 done, 1 running, 1 pending" in shown
        assert re.search(r"[0-9.]+ clips/min, [0-9.]+ frames/s; about [0-9:]+ left", shown)
        (worker,) = {event["pid"] for event in clips.events("started")}
        line = next(line for line in shown.splitlines() if line.startswith(host()))
        assert re.match(rf"{host()} +{worker} +b +rung 2, frame_interval 1 +0:00:\d\d", line)

        assert cancel([str(clips.root)]) == 0
        assert "on this machine; the command that began it goes on" in capsys.readouterr().out
        assert command.wait() == 130
    assert status([str(clips.root)]) == 0
    shown = capsys.readouterr().out
    assert "3 clips: 1 done, 2 pending" in shown
    assert "nobody is at work on it" in shown
    assert cancel([str(clips.root)]) == 0
    assert capsys.readouterr().out == "nobody is at work on it\n"


def test_failures_by_class_with_their_logs(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "tracking_error")
    (clips.folder / "clips" / "c.mp4").write_text("not a video")
    assert clips.run() == 1
    capsys.readouterr()
    assert status([str(clips.root), "--watch"]) == 0, "nothing is left: it comes back"
    shown = capsys.readouterr().out
    assert "3 clips: 1 done, 2 failed" in shown
    assert "1 failed with tracking; take them with 'retry=[tracking]' again" in shown
    assert "1 failed with decode" in shown
    for clip_id in ("b", "c"):
        log = clips.failure(clip_id)["log"]
        assert log in shown
        assert Path(log).is_file()
    assert clips.run("retry=[tracking]") == 1
    assert status([str(clips.root)]) == 0
    assert "3 clips: 2 done, 1 failed" in capsys.readouterr().out


@pytest.mark.parametrize("command", [status, cancel])
def test_no_run_folder(command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command)
    assert command([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
