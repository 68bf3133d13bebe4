"""Self-checks of results, on small cases with known values."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

import aot
from aot.images.compact import CompactMask
from aot.run import main
from aot.self_checks import MaskStability, check_objects, in_mask_share, return_errors, worst
from aot.types import BoolArray, QueryPoints, Tracks
from tests.command_line import EMBEDDED
from tests.synthetic import moving_square, write_video


def square(x: int, y: int = 10, side: int = 10) -> BoolArray:
    mask = np.zeros((40, 60), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def stability(*masks: BoolArray) -> float:
    found = MaskStability()
    for mask in masks:
        found.add(1, CompactMask.of(mask))
    return found.result()[1]


def test_stability_ignores_motion_but_not_change() -> None:
    assert stability(square(0), square(20), square(45, 25)) == 1
    assert stability(square(10), square(10, side=20)) == pytest.approx(100 / 400)
    assert stability(square(10), square(10), square(10, side=0)) == pytest.approx(0.5), "lost"
    assert stability(square(10, side=0), square(10, side=0), square(10)) == 0, "pairs without any mask do not count"
    assert math.isnan(stability(square(10)))
    leaking = square(10)
    leaking[:, 30:] = True
    assert stability(square(10), leaking) < 0.1


@pytest.mark.parametrize(("rows", "share"), [([0, 1], 0.75), ([0, 2], 0.5), ([0], math.nan), ([], math.nan)])
def test_positions_are_compared_only_with_masks_that_exist(rows: list[int], share: float) -> None:
    in_mask = np.array([[True, True], [True, False], [False, False]])
    found = in_mask_share(np.ones((3, 2), dtype=np.bool_), in_mask, np.array(rows, dtype=np.int64))
    assert found == pytest.approx(share, nan_ok=True)


def tracks(xy: list[list[tuple[float, float]]], visible: list[list[bool]]) -> Tracks:
    array = np.array(xy, dtype=np.float32)
    ones = np.ones(array.shape[:2], dtype=np.float32)
    return Tracks(array, np.array(visible), ones, ones)


def test_checks_are_per_object() -> None:
    found = tracks([[(0, 0)] * 3, [(0, 0)] * 3], [[True, True, False], [True, False, False]])
    in_mask = np.array([[True, False, True], [False, True, True]])
    checks = check_objects(
        found,
        np.array([1, 1, 2], dtype=np.int32),
        in_mask,
        np.arange(2),
        {1: 0.5, 2: math.nan},
        None,
        np.array([True, False, False]),
        np.array([False, True, True]),
        {1: 0.7, 2: math.nan},
    )
    assert (checks[1].visible, checks[1].mask_stability) == (0.75, 0.5)
    assert checks[1].in_mask == pytest.approx(1 / 3), "fraction of the visible ones"
    assert (checks[1].coverage, checks[1].ended, checks[1].added) == (0.7, 0.5, 0.5)
    assert checks[2].as_json() == {
        "visible": 0.0, "in_mask": None, "mask_stability": None, "return_error_px": None, "coverage": None,
        "ended": 0.0, "added": 1.0,
    }  # fmt: skip


def test_a_clip_has_the_value_of_its_worst_object() -> None:
    checks = {"1": {"visible": 0.5, "return_error_px": 3.0}, "2": {"visible": 0.9, "return_error_px": None}}
    assert (worst(checks, "visible"), worst(checks, "return_error_px")) == (0.5, 3.0)
    assert math.isnan(worst(checks, "in_mask"))
    assert worst({"1": {"coverage": 0.4, "ended": 0.1}, "2": {"coverage": 0.9, "ended": 0.3}}, "coverage") == 0.4
    assert worst({"1": {"coverage": 0.4, "ended": 0.1}, "2": {"coverage": 0.9, "ended": 0.3}}, "ended") == 0.3


def test_points_are_tracked_back_from_the_last_visible_position() -> None:
    """The first point is lost after frame 4, the second visible only at its query, the third was tracked backwards."""
    index = np.array([0, 4, 8], dtype=np.int64)
    queries = QueryPoints(np.array([[0, 1, 1], [4, 5, 5], [8, 9, 9]], dtype=np.float32), np.ones(3, dtype=np.int32))
    found = tracks(
        [[(1, 1), (0, 0), (7, 9)], [(2, 1), (5, 5), (8, 9)], [(9, 9), (0, 0), (9, 9)]],
        [[True, False, True], [True, True, True], [False, False, True]],
    )
    requests: list[QueryPoints] = []

    def back(again: QueryPoints) -> Tracks:
        requests.append(again)
        stays = np.repeat(again.txy[None, :, 1:], 3, axis=0)
        return tracks(stays.tolist(), [[True, True]] * 3)

    errors = return_errors(back, index, queries, found)
    assert requests[0].txy.tolist() == [[4, 2, 1], [0, 7, 9]]
    np.testing.assert_allclose(errors, [1, np.nan, 2])


def test_checks_reach_the_file_and_the_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clips" / "a.mp4", moving_square(8))
    (tmp_path / "clips" / "prompts.yaml").write_text("clips: {a: {objects: [{id: 3, box: [8, 20, 28, 40]}]}}")
    options = ["dataset=videos", "dataset.root=clips", "output.overlay=false", *EMBEDDED]
    options += ["query_points.num_points=20"]

    def checked(*more: str) -> tuple[dict[str, float | None], dict[str, str]]:
        assert main([*options, *more]) == 0
        (root,) = (tmp_path / "outputs" / "videos").iterdir()
        with (root / "summary.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        checks = json.loads(aot.load(root / "clips" / "a.h5").attributes["checks"])
        (root / "clips" / "a.h5").unlink()
        return checks["3"], row

    checks, row = checked()
    assert checks["mask_stability"] > 0.9
    assert float(row["mask_stability"]) == pytest.approx(checks["mask_stability"])
    assert (checks["return_error_px"], row["return_error_px"]) == (None, ""), "measured on request only"
    checks, row = checked("output.return_check=true")
    assert 0 <= checks["return_error_px"] < 1
    assert float(row["return_error_px"]) == pytest.approx(checks["return_error_px"])
