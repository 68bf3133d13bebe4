"""The evaluate command: scores of a run folder, in one process and in several."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from aot import run
from aot.evaluate import __main__ as evaluate
from aot.evaluate.clip import ClipScore
from aot.evaluate.masks import MaskScore, Series
from aot.evaluate.tables import score_rows, score_table, scores_as_csv
from aot.evaluate.tracks import PointScore
from tests.command_line import EMBEDDED


@pytest.fixture(scope="module")
def folder(demo_outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run of two demo clips, because scores are written into it."""
    return Path(shutil.copytree(demo_outputs, tmp_path_factory.mktemp("scored") / "run"))


@pytest.mark.slow
def test_a_run_is_scored_from_its_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(folder), "--workers", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["clip", "J&F", "J", "F", "AJ", "δ_avg", "OA", "PCK", "EPE", "survival"]
    assert [line[0] for line in lines[1:4]] == ["late", "zoom", "(all)"]
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["clip_id"], row["object_id"]) for row in rows] == [
        ("(all)", ""), ("late", ""), ("late", "1"), ("zoom", ""), ("zoom", "1"),
    ]  # fmt: skip
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["all"]["J"] == pytest.approx(float(rows[0]["J"]))
    assert scores["clips"]["late"]["held_frames"] > 30
    assert 0.3 < scores["clips"]["zoom"]["objects"]["1"]["masks"]["region"]["mean"] < 1

    assert evaluate.main([str(folder), "--workers", "2", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "scores.csv").read_text() == (folder / "scores.csv").read_text(), (
        "the same with several processes"
    )


def test_a_time_range_is_scored_on_the_same_frames_for_any_interval(demo_root: Path, tmp_path: Path) -> None:
    scored = {}
    for interval in (8, 16):
        options = [f"dataset.root='{demo_root}'", "dataset.include=[zoom]", f"output.root='{tmp_path}/{interval}'"]
        options += ["dataset.end_seconds=1", f"frame_interval={interval}", "output.overlay=false"]
        options += ["output.evaluate=false", "query_points.num_points=9"]
        assert run.main(["dataset=demo", *EMBEDDED, *options]) == 0
        (found,) = (tmp_path / f"{interval}" / "demo").iterdir()
        assert evaluate.main([str(found), "--workers", "1"]) == 0
        scored[interval] = json.loads((found / "scores.json").read_text())["clips"]["zoom"]
    frames = [scores["objects"]["1"]["masks"]["num_frames"] for scores in scored.values()]
    assert frames[0] == frames[1] > 10


def test_the_query_mode_can_be_chosen(folder: Path, tmp_path: Path) -> None:
    assert evaluate.main([str(folder), "--queries", "first", "--out", str(tmp_path), "--workers", "1"]) == 0
    first = json.loads((tmp_path / "scores.json").read_text())["all"]["positions"]
    assert evaluate.main([str(folder), "--out", str(tmp_path), "--workers", "1"]) == 0
    assert first < json.loads((tmp_path / "scores.json").read_text())["all"]["positions"]


def test_unfinished_clips_are_listed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "run"
    (copy / "clips").mkdir(parents=True)
    (copy / "run.json").write_bytes((folder / "run.json").read_bytes())
    assert evaluate.main([str(copy)]) == 2
    assert "no clip could be scored (2 clips in the run)" in capsys.readouterr().err
    (copy / "clips" / "zoom.h5").write_bytes((folder / "clips" / "zoom.h5").read_bytes())
    assert evaluate.main([str(copy)]) == 0
    assert "not scored (unfinished, or no ground truth): late" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_damaged_clip_does_not_affect_the_others(
    folder: Path, tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(folder, tmp_path / "run")
    (copy / "clips" / "late.h5").write_bytes(b"not HDF5")
    assert evaluate.main([str(copy), "--workers", workers]) == 1
    shown = capsys.readouterr()
    assert "late: cannot be scored: " in shown.err
    assert [line.split()[0] for line in shown.out.splitlines()[1:3]] == ["zoom", "(all)"]


@pytest.mark.parametrize("workers", ["0", "-1", "two"])
def test_invalid_numbers_of_workers_are_refused(
    tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate.main([str(tmp_path), f"--workers={workers}"])
    assert f"--workers '{workers}': expected an integer of at least 1" in capsys.readouterr().err


def test_folders_that_are_not_runs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def masks(*means: float) -> dict[int, MaskScore]:
    return {i + 1: MaskScore(Series(j, 1, 0), Series(j / 2, 1, 0), 10) for i, j in enumerate(means)}


def test_mask_scores_are_means_over_objects_and_track_scores_over_clips() -> None:
    points = PointScore(0.5, 0.5, 1.0, {1: 0.5}, {1: 0.5}, None, 10, 0)
    rows = score_rows({"a": ClipScore(masks(0.5, 1.0), points), "b": ClipScore(masks(0.75 - 0.75), None)})
    overall = rows[0]
    assert (overall["clip_id"], overall["J"], overall["F"]) == ("(all)", 0.5, 0.25)
    assert overall["J&F"] == pytest.approx(0.375)
    assert (overall["AJ"], overall["delta_1"], overall["PCK"], overall["positions"]) == (0.5, 0.5, "", 10)
    console = Console(width=100)
    with console.capture() as capture:
        console.print(score_table(rows))
    table = [line.split() for line in capture.get().splitlines()]
    assert table[0] == ["clip", "J&F", "J", "F", "AJ", "δ_avg", "OA"], "columns without numbers are omitted"
    assert table[2] == ["b", "0.000", "0.000", "0.000", "–", "–", "–"]
    assert scores_as_csv(rows).splitlines()[1].startswith("(all),,0.375,0.5,0.25,")
