"""The sweep report: the largest interval within a tolerance, by ground truth or agreement with the finest run."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot import run
from aot.evaluate.agreement import ResultTruth
from aot.evaluate.clip import evaluate_clip
from aot.sweep import __main__ as sweep
from aot.sweep.answers import write_answers
from aot.sweep.report import write_sweep_report
from aot.sweep.runs import Spacing, read_runs
from aot.sweep.scores import SweptClip, coarsest_within, summarize_intervals
from tests.command_line import EMBEDDED
from tests.results import write_result
from tests.synthetic import moving_square, write_video

NAN = math.nan


def interval(k: int) -> Spacing:
    return Spacing(k, "frame_interval", str(k))


def rate(fps: float | None) -> Spacing:
    return Spacing(1 / fps if fps else 0.0, "sample_fps", f"{fps:g}" if fps else "null")


@pytest.mark.parametrize(
    ("masks", "tracks", "expected"),
    [
        ([0.80, 0.79, 0.75], [NAN, NAN, NAN], 2),
        ([0.80, 0.78, 0.79], [0.9, 0.89, 0.88], 4),
        ([0.80, 0.85, 0.84], [0.9, 0.5, 0.9], 1),  # larger intervals than a failing one do not count
        ([0.80, 0.70, 0.80], [0.9, 0.9, 0.9], 1),
    ],
)
def test_largest_interval_within_a_tolerance_is_found(masks: list[float], tracks: list[float], expected: int) -> None:
    quality = {interval(k): {"masks": m, "tracks": t} for k, m, t in zip((1, 2, 4), masks, tracks)}
    assert coarsest_within(quality, 0.02 + 1e-9) == interval(expected)
    by_rate = {rate(fps): scores for fps, scores in zip((None, 10.0, 2.5), quality.values())}
    assert coarsest_within(by_rate, 0.02 + 1e-9) == rate({1: None, 2: 10.0, 4: 2.5}[expected])


def test_a_single_measure_can_be_selected() -> None:
    quality = {interval(1): {"masks": 0.8, "tracks": 0.9}, interval(2): {"masks": 0.8, "tracks": 0.1}}
    assert coarsest_within(quality, 0.02, ["masks"]) == interval(2)


def swept(spacing: Spacing, clip_id: str, masks: float, group: str = "") -> SweptClip:
    quality = {"masks": masks, "tracks": NAN}
    by_truth = {"masks": True, "tracks": False}
    return SweptClip(group, spacing, 1, clip_id, quality, by_truth, 2.0, 10**8, 50)


def test_intervals_are_compared_over_their_common_clips() -> None:
    clips = [swept(interval(1), "a", 0.8), swept(interval(1), "b", 0.2), swept(interval(2), "a", 0.6)]
    finest, coarser = summarize_intervals(clips)
    assert (finest.num_clips, finest.quality["masks"], finest.seconds) == (1, 0.8, 2.0)
    assert (coarser.num_clips, coarser.quality["masks"]) == (1, 0.6)
    assert math.isnan(finest.quality["tracks"])


def test_equal_values_are_not_compared() -> None:
    intervals = summarize_intervals([swept(interval(1), "a", 0.8), swept(interval(2), "a", 0.6)])
    (answer,) = write_answers(intervals, 0.02)
    assert answer.endswith("frame_interval=2 has J&F 0.600 instead of 0.800 and takes 2.0 s and 100 MB")


def test_answers_about_frames_chosen_by_time() -> None:
    intervals = summarize_intervals(
        [swept(rate(fps), "a", score) for fps, score in [(5.0, 0.79), (10.0, 0.8), (2.0, 0.1)]]
    )
    assert [each.spacing.value for each in intervals] == ["10", "5", "2"]
    (answer,) = write_answers(intervals, 0.02)
    assert answer.startswith(
        "masks: sample_fps=5 is the smallest within 0.02 of the score of sample_fps=10; sample_fps=5 "
    )
    (answer,) = write_answers(intervals, 0.001)
    assert answer.startswith(
        "masks: no smaller sample_fps is within 0.001 of the score of sample_fps=10; sample_fps=5 "
    )


def test_a_run_agrees_with_itself_and_less_with_another(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((9, 1, 40, 60)) > 0.5
    queries = [(0, 10, 10, 1), (4, 20, 20, 1)]
    xy = rng.uniform(0, 40, (9, 2, 2))
    xy[[0, 4], [0, 1]] = [[10, 10], [20, 20]]
    fine = write_result(tmp_path / "fine.h5", masks=masks, queries=queries, xy=xy)
    same = evaluate_clip(fine, ResultTruth(fine)).as_row()
    assert (same["J&F"], same["delta_avg"], same["OA"]) == (1, 1, 1)
    coarse = write_result(
        tmp_path / "coarse.h5", masks=masks[::4], queries=queries, xy=xy[::4], index=[0, 4, 8],
        attributes={"frame_interval": 4},
    )  # fmt: skip
    less = evaluate_clip(coarse, ResultTruth(fine))
    assert less.num_held == 6
    assert less.points is not None
    assert less.points.within[1] < 0.7
    assert (less.region_similarity or 0) < 0.7


def test_different_query_points_are_not_compared(tmp_path: Path) -> None:
    masks = np.ones((3, 1, 8, 8), dtype=np.bool_)
    one = write_result(tmp_path / "one.h5", masks=masks, queries=[(0, 1, 1, 1)])
    other = write_result(tmp_path / "other.h5", masks=masks, queries=[(0, 2, 1, 1)])
    score = evaluate_clip(one, ResultTruth(other))
    assert score.points is not None
    assert score.points.num_positions == 0


def page_data(folder: Path) -> Any:
    """The data that the page of a sweep shows."""
    text = (folder / "report" / "data" / "sweep.js").read_text()
    return json.loads(text[text.index("(") + 1 : text.rindex(")")])


@pytest.fixture(scope="module")
def folder(demo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one demo clip, which has ground truth, over two intervals."""
    root = tmp_path_factory.mktemp("sweep")
    options = [f"dataset.root='{demo_root}'", "dataset.include=[zoom]", f"output.root='{root}/out'"]
    options += ["output.overlay=false", "output.evaluate=false", "query_points.num_points=30"]
    assert run.main(["-m", "dataset=demo", *EMBEDDED, *options, "frame_interval=2,8"]) == 0
    (found,) = (root / "out" / "demo").iterdir()
    return found


@pytest.mark.slow
def test_command_writes_a_page_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(folder), "--workers", "1", "--tolerance", "0.9"]) == 0
    printed = capsys.readouterr().out
    assert (
        "masks: frame_interval=8 is the largest within 0.9 of the score of frame_interval=2; frame_interval=8 has J&F"
        in printed
    )
    assert printed.splitlines()[0].split() == [
        "interval", "masks", "(J&F)", "tracks", "(δ_avg)", "seconds", "peak", "MB", "clips",
    ]  # fmt: skip
    with (folder / "report" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame_interval"], row["clip_id"], row["masks by truth"]) for row in rows] == [
        ("2", "zoom", "True"), ("8", "zoom", "True"),
    ]  # fmt: skip
    assert float(rows[0]["masks (J&F)"]) > float(rows[1]["masks (J&F)"])
    assert "sweep-page.js" in (folder / "report" / "index.html").read_text()
    assert all((folder / "report" / "assets" / name).is_file() for name in ("charts.js", "table.js", "report.css"))
    data = page_data(folder)
    assert data["measures"][0] == {"key": "masks", "score": "J&F", "source": "against ground truth"}
    (clip,) = data["clips"]
    assert (clip["clip_id"], clip["coarsest"], list(clip["runs"])) == ("zoom", 8, ["2", "8"])
    assert clip["runs"]["8"]["quality"]["masks"] == pytest.approx(float(rows[1]["masks (J&F)"]))
    assert clip["runs"]["8"]["beyond"] == []


@pytest.mark.slow
def test_other_swept_options_become_groups(demo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"dataset.root='{demo_root}'", "dataset.include=[zoom]", f"output.root='{tmp_path}/out'"]
    options += ["output.overlay=false", "output.evaluate=false", "query_points.num_points=9"]
    swept = ["dataset.end_seconds=1,0.9", "frame_interval=8,16"]
    assert run.main(["-m", "dataset=demo", *EMBEDDED, *options, *swept]) == 0
    (folder,) = (tmp_path / "out" / "demo").iterdir()
    assert sweep.main([str(folder), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "dataset.end_seconds=0.9" in shown
    assert "dataset.end_seconds=1.0" in shown
    assert page_data(folder)["groups"] == ["dataset.end_seconds=0.9", "dataset.end_seconds=1.0"]


def test_tolerance_that_no_interval_meets_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(folder), "--workers", "1", "--tolerance", "0"]) == 0
    shown = capsys.readouterr().out
    assert (
        "masks: no larger frame_interval is within 0 of the score of frame_interval=2; frame_interval=8 has J&F"
        in shown
    )
    assert "masks and tracks: frame_interval=2 is the largest that keeps both within 0" in shown
    assert "masks" in page_data(folder)["clips"][0]["runs"]["8"]["beyond"]


def test_without_ground_truth_runs_are_compared_with_the_finest(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.mp4", moving_square(12))
    (tmp_path / "clips" / "prompts.yaml").write_text("clips: {a: {objects: [{id: 1, box: [8, 20, 28, 40]}]}}")
    options = [f"dataset.root='{tmp_path}/clips'", f"output.root='{tmp_path}/out'", "output.overlay=false"]
    options += ["frame_interval=1,4", "query_points.num_points=9"]
    trackers = "tracker.window_px=9,11"
    assert run.main(["-m", "dataset=videos", *EMBEDDED, *options, trackers]) == 0
    (found,) = (tmp_path / "out" / "videos").iterdir()
    report = write_sweep_report(found, workers=1)
    finest = [clip for clip in report.clips if clip.spacing == interval(1)]
    assert {clip.group for clip in finest} == {"tracker.window_px=9", "tracker.window_px=11"}
    assert all(clip.quality == {"masks": 1, "tracks": 1} for clip in finest)
    assert not any(any(clip.by_truth.values()) for clip in report.clips)
    assert all(clip.quality["masks"] < 1 for clip in report.clips if clip.spacing == interval(4))


def test_runs_of_frames_chosen_by_time_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "clips" / "a.mp4", moving_square(12))
    (tmp_path / "clips" / "prompts.yaml").write_text("clips: {a: {objects: [{id: 1, box: [8, 20, 28, 40]}]}}")
    options = [f"dataset.root='{tmp_path}/clips'", f"output.root='{tmp_path}/out'", "output.overlay=false"]
    options += ["query_points.num_points=9", "sample_fps=null,5,2.5"]
    assert run.main(["-m", "dataset=videos", *EMBEDDED, *options]) == 0
    (found,) = (tmp_path / "out" / "videos").iterdir()
    assert capsys.readouterr().out.endswith(f"quality against sample_fps: python -m aot.sweep {found}\n")
    assert sorted(str(each.spacing) for each in read_runs(found)) == [
        "sample_fps=2.5", "sample_fps=5", "sample_fps=null",
    ]  # fmt: skip
    assert sweep.main([str(found), "--workers", "1", "--tolerance", "1"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split()[0] == "sample_fps"
    assert "masks and tracks: sample_fps=2.5 is the smallest that keeps both within 1" in shown
    data = page_data(found)
    assert (data["key"], data["values"]) == ("sample_fps", ["null", "5", "2.5"])
    with (found / "report" / "sweep.csv").open(newline="") as file:
        assert {row["sample_fps"]: row["frame_interval_used"] for row in csv.DictReader(file)} == {
            "null": "1", "5": "1", "2.5": "1",
        }  # fmt: skip


def test_folders_that_are_not_sweeps_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main([str(tmp_path)]) == 2
    assert "is not a sweep folder, it contains 0 runs; expected a sweep folder" in capsys.readouterr().err
    for number, source in enumerate(sorted(path for path in folder.iterdir() if (path / "run.json").exists())):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_bytes((source / "run.json").read_bytes())
    assert sweep.main([str(tmp_path)]) == 2
    assert "no clip is finished in all of its 2 runs" in capsys.readouterr().err
    (tmp_path / "0" / "run.json").write_bytes((tmp_path / "1" / "run.json").read_bytes())
    assert sweep.main([str(tmp_path)]) == 2
    assert (
        "all of its runs keep the same frames (sample_fps=null and the same frame_interval); expected"
        in capsys.readouterr().err
    )
