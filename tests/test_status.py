"""`aot.status` and `aot.cancel`: the progress of a run or a sweep, read from its folder, and cancelling a run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aot.cancel import main as cancel
from aot.runs.ledger import Ledger
from aot.status import StatusReader
from aot.status import main as status
from aot.system.processes import host
from tests.faults.commands import Command
from tests.launching.clips import Clips
from tests.launching.in_memory import MemoryRun
from tests.waiting import wait_until


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path, {"a": 5, "b": 7, "c": 9})


@pytest.mark.slow
def test_status_and_cancel_of_running_command(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "memory_error", "wait")
    with Command(clips) as command:
        wait_until(lambda: clips.was_injected("b", 1, "wait") and len(clips.events("ended")) == 1)
        assert status([str(clips.root)]) == 0
        shown = capsys.readouterr().out
        assert "3 clips: 1 done, 1 running, 1 pending" in shown
        assert re.search(r"[0-9.]+ clips/min, [0-9.]+ frames/s\nabout [0-9:]+ left", shown)
        worker = clips.worker()
        line = next(line for line in shown.splitlines() if line.startswith(host()))
        assert re.match(rf"{host()} +{worker} +b +rung 2, frame_interval 1 +0:00:\d\d", line)

        assert cancel([str(clips.root)]) == 0
        assert "on this machine; run the command that started the run again to resume it" in capsys.readouterr().out
        assert command.wait() == 130
    assert status([str(clips.root)]) == 0
    shown = capsys.readouterr().out
    assert "3 clips: 1 done, 2 pending" in shown
    assert "no worker is running; run the same command again to resume" in shown
    assert cancel([str(clips.root)]) == 0
    assert capsys.readouterr().out == "no worker is running\n"


def test_clip_whose_reading_ahead_ends_in_its_turn_is_still_running(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, {"a": 1, "b": 1})
    run.plan()
    reader = StatusReader(run.paths)
    ledger = Ledger(run.paths, "w")
    for event in ("reading ahead", "started", "read ahead"):
        settings = {"work": "all", "rung": 1, "frame_interval": 1, "lean": False, "content": ""}
        ledger.append(event, clip_id="b", **settings)
        running = [clip.clip_id for clip in reader.read().running]
        assert running == ([] if event == "reading ahead" else ["b"])


@pytest.mark.slow
def test_failures_are_listed_by_class_with_their_logs(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "tracking_error")
    (clips.folder / "clips" / "c.mp4").write_text("not a video")
    assert clips.run() == 1
    capsys.readouterr()
    assert status([str(clips.root), "--watch"]) == 0, "it returns, because no clip is left"
    shown = capsys.readouterr().out
    assert "3 clips: 1 done, 2 failed" in shown
    assert "1 failed with tracking: run the same command with 'retry=[tracking]'" in shown
    assert "1 failed with decode" in shown
    for clip_id, kind in {"b": "tracking", "c": "decode"}.items():
        line = next(line for line in shown.splitlines() if line.startswith(f"{kind} "))
        assert line.split()[1] == clip_id
        assert (clips.root / line.split()[-1]).samefile(clips.failure(clip_id)["log"])
    assert clips.run("retry=[tracking]") == 1
    assert status([str(clips.root)]) == 0
    shown = capsys.readouterr().out
    assert "3 clips: 2 done, 1 failed" in shown
    assert re.search(r"\nfinished\nthe models computed in \d+% of the time of 1 worker\n", shown)


def test_status_of_sweep_has_one_line_per_run(clips: Clips, capsys: pytest.CaptureFixture[str]) -> None:
    clips.inject("b", "tracking_error")
    assert clips.run("-m", "frame_interval=1,2", "launcher=inline", "output.report=false") == 1
    sweep = clips.root
    runs = sorted(path.name for path in sweep.iterdir())
    (sweep / runs[1] / "clips" / "a.h5").unlink()
    capsys.readouterr()
    assert status([str(sweep)]) == 0
    first, count, heading, *lines = capsys.readouterr().out.splitlines()
    assert (first, count) == (str(sweep), "2 runs")
    assert heading.split() == ["run", "done", "partial", "failed", "running", "pending", "state"]
    assert [line.split()[0] for line in lines] == runs
    assert lines[0].split()[1:] == ["2", "0", "1", "0", "0", "finished"]
    assert lines[1].split()[1:6] == ["2", "0", "0", "0", "1"]
    assert lines[1].endswith("no worker is running; run the same command again to resume")


@pytest.mark.parametrize("command", [status, cancel])
def test_other_folder_is_refused(command: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert callable(command)
    assert command([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
