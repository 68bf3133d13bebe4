"""The sweep report: which interval is within a tolerance, scored by truth or by agreement with the finest run."""

from __future__ import annotations

import csv
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from aot import run
from aot.evaluate.agreement import ResultTruth
from aot.evaluate.clip import evaluate_clip
from aot.sweep import __main__ as sweep
from aot.sweep.picture import draw_sweep
from aot.sweep.scores import SweptClip, intervals_of, largest_within
from tests.command_line import EMBEDDED
from tests.results import write_result
from tests.synthetic import moving_square, write_video

NAN = math.nan


@pytest.mark.parametrize(
    ("masks", "tracks", "expected"),
    [
        ([0.80, 0.79, 0.75], [NAN, NAN, NAN], 2),
        ([0.80, 0.78, 0.79], [0.9, 0.89, 0.88], 4),
        ([0.80, 0.85, 0.84], [0.9, 0.5, 0.9], 1),  # an interval beyond one that is too bad is not trusted
        ([0.80, 0.70, 0.80], [0.9, 0.9, 0.9], 1),
    ],
)
def test_the_largest_interval_within_a_tolerance(masks: list[float], tracks: list[float], expected: int) -> None:
    quality = {k: {"masks": m, "tracks": t} for k, m, t in zip((1, 2, 4), masks, tracks)}
    assert largest_within(quality, 0.02 + 1e-9) == expected


def test_one_measure_may_be_asked_for() -> None:
    quality = {1: {"masks": 0.8, "tracks": 0.9}, 2: {"masks": 0.8, "tracks": 0.1}}
    assert largest_within(quality, 0.02, ["masks"]) == 2


def swept(frame_interval: int, clip_id: str, masks: float, group: str = "") -> SweptClip:
    quality = {"masks": masks, "tracks": NAN}
    by_truth = {"masks": True, "tracks": False}
    return SweptClip(group, frame_interval, frame_interval, clip_id, quality, by_truth, 2.0, 10**8, 50)


def test_intervals_are_compared_over_the_clips_that_all_have() -> None:
    clips = [swept(1, "a", 0.8), swept(1, "b", 0.2), swept(2, "a", 0.6)]
    finest, coarser = intervals_of(clips)
    assert (finest.num_clips, finest.quality["masks"], finest.seconds) == (1, 0.8, 2.0)
    assert (coarser.num_clips, coarser.quality["masks"]) == (1, 0.6)
    assert math.isnan(finest.quality["tracks"])


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


def test_other_points_do_not_count_as_agreement(tmp_path: Path) -> None:
    masks = np.ones((3, 1, 8, 8), dtype=np.bool_)
    one = write_result(tmp_path / "one.h5", masks=masks, queries=[(0, 1, 1, 1)])
    other = write_result(tmp_path / "other.h5", masks=masks, queries=[(0, 2, 1, 1)])
    score = evaluate_clip(one, ResultTruth(other))
    assert score.points is not None
    assert score.points.num_positions == 0


def texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_the_picture_says_what_it_shows() -> None:
    clips = [swept(k, clip, 0.8 - k / 20) for k in (1, 2) for clip in ("a", "b")]
    svg = draw_sweep(clips, intervals_of(clips), title="a <sweep> & more", tolerance=0.02, sources={"masks": "truth"})
    shown = texts(svg)
    assert {"a <sweep> & more", "masks: J&F (truth)", "0.750", "0.700", "frame_interval"} <= set(shown)
    assert not any(text.startswith("tracks") for text in shown), "no panel for what was not measured"


def test_groups_are_told_apart() -> None:
    clips = [swept(k, "a", 0.5, group) for k in (1, 2) for group in ("tracker=x", "tracker=y")]
    svg = draw_sweep(clips, intervals_of(clips), title="", tolerance=0.02, sources={"masks": "truth"})
    assert {"tracker=x", "tracker=y"} <= set(texts(svg))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over a demo clip, whose truth is known, and two options of the tracker."""
    root = tmp_path_factory.mktemp("sweep")
    options = [f"dataset.root='{root}/demo'", "dataset.include=[zoom]", f"output.root='{root}/out'"]
    options += ["output.overlay=false", "output.evaluate=false", "query_points.num_points=30"]
    assert run.main(["-m", "dataset=demo", *EMBEDDED, *options, "frame_interval=1,8"]) == 0
    (found,) = (root / "out" / "demo").iterdir()
    return found


def test_a_sweep_becomes_a_page_a_picture_and_a_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(folder), "--workers", "1", "--tolerance", "0.9"]) == 0
    assert "masks: frame_interval=8 is the largest within 0.9 of 1; 8 has J&F" in capsys.readouterr().out
    with (folder / "report" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame_interval"], row["clip_id"], row["masks by truth"]) for row in rows] == [
        ("1", "zoom", "True"), ("8", "zoom", "True"),
    ]  # fmt: skip
    assert float(rows[0]["masks (J&F)"]) > float(rows[1]["masks (J&F)"])
    assert "masks: J&F (against ground truth)" in texts((folder / "report" / "sweep.svg").read_text())
    page = (folder / "report" / "index.html").read_text()
    assert page.count("<svg") == 1
    assert '<td class="">zoom</td>' in page


def test_other_options_become_lines_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"dataset.root='{tmp_path}/demo'", "dataset.include=[zoom]", f"output.root='{tmp_path}/out'"]
    options += ["output.overlay=false", "output.evaluate=false", "query_points.num_points=30"]
    swept = ["dataset.end_seconds=1,0.9", "frame_interval=8,16"]
    assert run.main(["-m", "dataset=demo", *EMBEDDED, *options, *swept]) == 0
    (folder,) = (tmp_path / "out" / "demo").iterdir()
    assert sweep.main([str(folder), "--workers", "1"]) == 0
    shown = capsys.readouterr().out
    assert "dataset.end_seconds=0.9" in shown
    assert "dataset.end_seconds=1.0" in shown


def test_a_tolerance_that_nothing_meets(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(folder), "--workers", "1", "--tolerance", "0"]) == 0
    shown = capsys.readouterr().out
    assert "masks: no frame_interval above 1 is within 0; 8 has J&F" in shown
    assert "both: frame_interval=1" in shown


def test_without_truth_runs_are_held_against_the_finest(tmp_path: Path) -> None:
    write_video(tmp_path / "clips" / "a.mp4", moving_square(12))
    (tmp_path / "clips" / "prompts.yaml").write_text("clips: {a: {objects: [{id: 1, box: [8, 20, 28, 40]}]}}")
    options = [f"dataset.root='{tmp_path}/clips'", f"output.root='{tmp_path}/out'", "output.overlay=false"]
    options += ["frame_interval=1,4", "query_points.num_points=9"]
    trackers = "tracker.window_px=9,11"
    assert run.main(["-m", "dataset=videos", *EMBEDDED, *options, trackers]) == 0
    (found,) = (tmp_path / "out" / "videos").iterdir()
    report = sweep.write_sweep_report(found, workers=1)
    finest = [clip for clip in report.clips if clip.frame_interval == 1]
    assert {clip.group for clip in finest} == {"tracker.window_px=9", "tracker.window_px=11"}
    assert all(clip.quality == {"masks": 1, "tracks": 1} for clip in finest)
    assert not any(any(clip.by_truth.values()) for clip in report.clips)
    assert all(clip.quality["masks"] < 1 for clip in report.clips if clip.frame_interval == 4)


def test_other_folders_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main([str(tmp_path)]) == 2
    assert "0 runs in it; expected the folder of a sweep" in capsys.readouterr().err
    for number, source in enumerate(sorted(path for path in folder.iterdir() if (path / "run.json").exists())):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "run.json").write_bytes((source / "run.json").read_bytes())
    assert sweep.main([str(tmp_path)]) == 2
    assert "no clip is finished in every one of its 2 runs" in capsys.readouterr().err
    (tmp_path / "0" / "run.json").write_bytes((tmp_path / "1" / "run.json").read_bytes())
    assert sweep.main([str(tmp_path)]) == 2
    assert "all its runs have frame_interval=" in capsys.readouterr().err
