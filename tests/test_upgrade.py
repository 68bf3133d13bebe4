"""Run folders of version 0.1 are resumed: none of their results is computed again.

tests/data/run_0_1 was written by version 0.1.0 from two clips, one of which is not a video; absolute paths
were replaced.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import aot
from aot.run import main

MADE_BY_0_1 = Path(__file__).parent / "data" / "run_0_1"
COMMAND = [
    *("dataset=videos", "dataset.root=clips", "segmenter=grabcut", "tracker=lucas_kanade", "launcher=inline"),
    *("query_points.num_points=20", "output.report=false"),
]


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder, in a new working directory together with its clips."""
    shutil.copytree(MADE_BY_0_1, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (folder,) = Path("outputs/videos").iterdir()
    return folder


def started(run_folder: Path) -> list[str]:
    lines = [line for ledger in run_folder.glob("ledger/**/*.jsonl") for line in ledger.read_text().splitlines()]
    starts = [event for event in map(json.loads, lines) if event["event"] == "started" and event["work"] == "all"]
    return sorted(event["clip_id"] for event in starts)


def test_the_same_command_resumes_the_run(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = json.loads((run_folder / "run.json").read_text())["clips"]
    for clip_id, record in known.items():  # git does not preserve modification times
        os.utime(f"clips/{clip_id}.mp4", ns=(record["mtime_ns"], record["mtime_ns"]))
    result = run_folder / "clips" / "a.h5"
    before = result.read_bytes()
    assert main(COMMAND) == 1, "the failed clip stays failed"
    assert "1 finished before, 1 failed before" in capsys.readouterr().out
    assert [path.name for path in Path("outputs/videos").iterdir()] == [run_folder.name]
    assert result.read_bytes() == before
    assert started(run_folder) == ["a", "broken"], "only the attempts of version 0.1"


def test_only_changed_clips_are_computed_again(run_folder: Path) -> None:
    os.utime("clips/a.mp4")  # a new modification time, the same content
    shutil.copy("clips/a.mp4", "clips/broken.mp4")
    assert main(COMMAND) == 0
    assert started(run_folder) == ["a", "broken", "broken"]


def test_results_can_be_read(run_folder: Path) -> None:
    result = aot.load(run_folder / "clips" / "a.h5")
    assert result.masks.shape == (8, 1, 64, 96)
    assert result.tracks.xy.shape == (8, 20, 2)
    assert aot.open_run(run_folder).clip_ids == ["a"]
