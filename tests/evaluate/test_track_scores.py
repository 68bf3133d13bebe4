"""AJ, δ and OA: manually computed cases, and comparison with the published definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aot.datasets.ground_truth import QueryMode, TrackTruth
from aot.evaluate.tracks import THRESHOLDS, PointScore, counted_positions, score_points
from aot.types import BoolArray


def score(
    xy: list[list[tuple[float, float]]],
    true_xy: list[list[tuple[float, float]]],
    visible: list[list[bool]] | None = None,
    true_visible: list[list[bool]] | None = None,
    annotated: list[list[bool]] | None = None,
    size: tuple[int, int] = (256, 256),
    area: float = np.nan,
) -> PointScore:
    """Score (F, N) positions of which all count."""
    found, true = np.array(xy, dtype=np.float32), np.array(true_xy, dtype=np.float32)
    shape = found.shape[:2]

    def flags(values: list[list[bool]] | None) -> BoolArray:
        return np.ones(shape, dtype=np.bool_) if values is None else np.array(values)

    truth = TrackTruth(true, flags(true_visible), flags(annotated))
    counted = np.ones(shape, dtype=np.bool_)
    return score_points(
        found, flags(visible), truth, counted, width=size[0], height=size[1], areas=np.full(shape, area)
    )


def test_ground_truth_scores_one_against_itself() -> None:
    positions = [[(1.0, 2.0), (30.0, 40.0)], [(2.0, 2.0), (31.0, 40.0)]]
    assert score(positions, positions, area=16) == PointScore(
        1.0, 1.0, 1.0, dict.fromkeys(THRESHOLDS, 1.0), dict.fromkeys(THRESHOLDS, 1.0), 1.0, 4, 4
    )


def test_distances_are_measured_on_the_raster() -> None:
    # 3 px of 768 are 1 px of 256; 5.9 px of 512 high are 2.95.
    at_one = score([[(3.0, 0.0)]], [[(0.0, 0.0)]], size=(768, 512))
    assert at_one.within == {1: 0.0, 2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0}
    assert at_one.average_within == pytest.approx(0.8)
    assert score([[(0.0, 5.9)]], [[(0.0, 0.0)]], size=(768, 512)).within == {1: 0.0, 2: 0.0, 4: 1.0, 8: 1.0, 16: 1.0}


def test_jaccard_of_each_combination_of_visibilities() -> None:
    """Correct and visible; correct but predicted hidden; hidden but predicted visible; hidden and predicted hidden."""
    found = score(
        [[(0, 0), (0, 0), (0, 0), (0, 0)]],
        [[(0.5, 0), (0.5, 0), (np.nan, np.nan), (9, 9)]],
        visible=[[True, False, True, False]],
        true_visible=[[True, True, False, False]],
    )
    # 1 true positive over 2 visible ones and 1 false positive.
    assert found.jaccard == dict.fromkeys(THRESHOLDS, 1 / 3)
    assert found.average_jaccard == pytest.approx(1 / 3)
    assert found.within == dict.fromkeys(THRESHOLDS, 1.0), "δ ignores the predicted visibility"
    assert found.occlusion_accuracy == 0.5


def test_a_distant_visible_position_is_a_false_positive_and_a_miss() -> None:
    found = score([[(0, 0), (50, 0)]], [[(0, 0), (0, 0)]])
    assert found.jaccard == dict.fromkeys(THRESHOLDS, 1 / 3)


def test_positions_without_annotation_are_not_scored() -> None:
    found = score([[(0, 0), (50, 0)]], [[(0, 0), (np.nan, np.nan)]], annotated=[[True, False]])
    assert (found.average_jaccard, found.occlusion_accuracy, found.num_positions) == (1.0, 1.0, 1)
    nothing = score([[(0, 0)]], [[(0, 0)]], annotated=[[False]])
    assert nothing == PointScore(None, None, None, {}, {}, None, 0, 0)


@pytest.mark.parametrize(
    ("area", "shift_px", "pck"),
    # 0.2 times the square roots 4, 5 and 20; a position at exactly this distance counts.
    [(16, 0.79, 1.0), (16, 0.81, 0.0), (25, 1.0, 1.0), (25, 1.01, 0.0), (400, 4.0, 1.0), (400, 4.01, 0.0)],
)
def test_pck_counts_within_a_fifth_of_the_objects_size(area: float, shift_px: float, pck: float) -> None:
    found = score([[(shift_px, 0)]], [[(0, 0)]], area=area)
    assert (found.pck, found.num_pck) == (pck, 1)
    assert score([[(shift_px, 0)]], [[(0, 0)]]).pck is None, "without a mask there is no size"


def test_query_modes_select_the_scored_positions() -> None:
    queries = np.array([[1, 0, 0], [3, 0, 0]], dtype=np.float32)
    frames = np.arange(4, dtype=np.int64)
    assert counted_positions(queries, frames, "first").T.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert counted_positions(queries, frames, "strided").T.tolist() == [[1, 0, 1, 1], [1, 1, 1, 0]]


def published(
    query_frame: np.ndarray,
    true_occluded: np.ndarray,
    true_xy: np.ndarray,
    occluded: np.ndarray,
    xy: np.ndarray,
    mode: QueryMode,
) -> dict[str, float]:
    """The definition in section 4 of the paper and its appendix, position by position; (N, T) and (N, T, 2) arrays."""
    found: dict[str, float] = {}
    positions = [
        (n, t)
        for n in range(len(query_frame))
        for t in range(xy.shape[1])
        if (t > query_frame[n] if mode == "first" else t != query_frame[n])
    ]
    found["OA"] = sum(occluded[p] == true_occluded[p] for p in positions) / len(positions)
    jaccard, within = [], []
    for threshold in (1, 2, 4, 8, 16):
        near = {p: float(((xy[p] - true_xy[p]) ** 2).sum()) < threshold**2 for p in positions}
        visible = [p for p in positions if not true_occluded[p]]
        within.append(sum(near[p] for p in visible) / len(visible))
        true_positive = sum(near[p] and not occluded[p] for p in visible)
        false_positive = sum(not occluded[p] and (bool(true_occluded[p]) or not near[p]) for p in positions)
        jaccard.append(true_positive / (len(visible) + false_positive))
    return found | {"AJ": float(np.mean(jaccard)), "delta": float(np.mean(within))}


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), mode=st.sampled_from(["first", "strided"]))
def test_scores_equal_the_published_definition(seed: int, mode: QueryMode) -> None:
    rng = np.random.default_rng(seed)
    num_points, num_frames, width, height = 5, 9, 640, 360
    true_xy = rng.uniform(0, [width, height], (num_points, num_frames, 2))
    xy = true_xy + rng.normal(0, 1, true_xy.shape) * 10 ** rng.uniform(-1, 2, (num_points, num_frames, 1))
    true_occluded, occluded = rng.random((2, num_points, num_frames)) < 0.3
    query_frame = rng.integers(0, num_frames - 1, num_points)
    true_occluded[:, -1] = False
    raster = 256 / np.array([width, height])
    expected = published(query_frame, true_occluded, true_xy * raster, occluded, xy * raster, mode)

    queries = np.column_stack([query_frame, np.zeros((num_points, 2))]).astype(np.float32)
    counted = counted_positions(queries, np.arange(num_frames, dtype=np.int64), mode)
    truth = TrackTruth(
        true_xy.swapaxes(0, 1).astype(np.float32), ~true_occluded.T, np.ones((num_frames, num_points), dtype=np.bool_)
    )
    found = score_points(
        xy.swapaxes(0, 1).astype(np.float32), ~occluded.T, truth, counted, width=width, height=height,
        areas=np.full(counted.shape, np.nan),
    )  # fmt: skip
    assert found.average_jaccard == pytest.approx(expected["AJ"], abs=1e-3)
    assert found.average_within == pytest.approx(expected["delta"], abs=1e-3)
    assert found.occlusion_accuracy == pytest.approx(expected["OA"])
