"""The flow of valid points, and the motion of objects."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aot.lifetimes import Lifetimes
from aot.motion import fit_affine, flow_between
from aot.types import ClipResult, Tracks

INDEX, TIME = np.array([0, 2, 6], dtype=np.int64), np.array([0.0, 0.1, 0.3])
# Turned by 90 degrees, doubled, and moved.
MAP = np.array([[0.0, -2.0, 30.0], [2.0, 0.0, -5.0]])


def moved(xy: np.ndarray) -> np.ndarray:
    return xy @ MAP[:, :2].T + MAP[:, 2]


def result() -> ClipResult:
    """Object 3 moves by MAP from row 0 to row 1 and stays; one of its five points is never valid. Object 5 has none."""
    start = np.array([[1, 1], [5, 2], [4, 6], [2, 7], [3, 3]], dtype=np.float32)
    xy = np.stack([start, moved(start), moved(start)]).astype(np.float32)
    xy[1, 4] += 100
    valid = np.ones((3, 5), np.bool_)
    valid[:, 4] = False
    masks = np.zeros((3, 2, 20, 40), np.bool_)
    masks[:, 0, 4:8, 10:20] = True
    ones = np.ones((3, 5), np.float32)
    return ClipResult(
        index=INDEX, time=TIME, object_id=np.array([3, 5], np.int32), object_name=("a", ""),
        object_prompts=([], []), object_error=("", ""), mask_row=np.arange(3), masks=masks,
        mask_score=np.ones((3, 2), np.float32), coverage=np.full((3, 2), 0.5, np.float32),
        query=np.zeros((5, 3), np.float32), track_object_id=np.full(5, 3, np.int32),
        tracks=Tracks(xy, np.ones((3, 5), np.bool_), ones, ones), in_mask=valid,
        lifetimes=Lifetimes(np.zeros(5, np.int64), np.full(5, -1), valid),
    )  # fmt: skip


def test_flow_without_arguments_is_the_difference_of_all_positions() -> None:
    np.testing.assert_array_equal(result().flow(), np.diff(result().tracks.xy, axis=0))


def test_flow_of_valid_points_is_nan_where_either_end_is_not_valid() -> None:
    found = result()
    found.lifetimes.valid[1, 0] = False
    flow = found.flow(valid=True)
    assert np.isnan(flow[:, [0, 4]]).all()
    np.testing.assert_array_equal(flow[:, 1:4], found.flow()[:, 1:4])


def test_flow_per_frame_and_per_second() -> None:
    found = result()
    np.testing.assert_allclose(found.flow(per="frame"), found.flow() / np.array([2, 4])[:, None, None])
    np.testing.assert_allclose(found.flow(per="second"), found.flow() / np.array([0.1, 0.2])[:, None, None], rtol=1e-6)
    np.testing.assert_allclose(found.flow(step=2, per="frame"), (found.tracks.xy[2:] - found.tracks.xy[:1]) / 6)


@pytest.mark.parametrize(("arguments", "message"), [({"step": 0}, "at least 1"), ({"per": "hour"}, "'frame' or")])
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        result().flow(**arguments)  # type: ignore[arg-type]


def test_motion_of_an_object_is_that_of_its_valid_points() -> None:
    motion = result().motion()
    np.testing.assert_allclose(motion.affine[0, 0], MAP, atol=1e-4)
    assert motion.num_points[:, 0].tolist() == [4, 4, 0]
    np.testing.assert_allclose(motion.mean_flow[0, 0], result().flow()[0, :4].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(motion.residual[:2, 0], 0, atol=1e-4)
    assert np.isnan(motion.affine[2]).all()
    assert motion.area[:, 0].tolist() == [40] * 3
    assert motion.centroid[0, 0].tolist() == [14.5, 5.5]
    assert motion.box[0, 0].tolist() == [10, 4, 19, 7]
    assert motion.coverage[0, 0] == 0.5


def test_motion_of_an_object_without_mask_and_points_is_nan() -> None:
    motion = result().motion()
    for values in (motion.area, motion.centroid, motion.box, motion.mean_flow, motion.affine, motion.residual):
        assert np.isnan(values[:, 1]).all()


def test_motion_needs_the_masks() -> None:
    with pytest.raises(ValueError, match="masks='lazy'"):
        replace(result(), masks=None).motion()


def test_an_affine_fit_ignores_outliers() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 50, (40, 2)).astype(np.float32)
    after = moved(before).astype(np.float32)
    after[:6] += 20
    fitted = fit_affine(before, after)
    assert fitted is not None
    np.testing.assert_allclose(fitted[0], MAP, atol=0.3)
    assert fitted[1] > 5


@pytest.mark.parametrize("before", [[[0, 0], [5, 5]], [[0, 0], [5, 5], [9, 9], [20, 20]]])
def test_points_on_a_line_have_no_affine_fit(before: list[list[float]]) -> None:
    points = np.array(before, dtype=np.float32)
    assert fit_affine(points, points) is None


def test_flow_of_integer_frames_is_float32() -> None:
    found = flow_between(np.zeros((3, 2, 2), np.float32), None, INDEX, TIME, per="frame", step=1)
    assert found.dtype == np.float32
