"""Points that are tracked in several passes."""

from __future__ import annotations

import numpy as np
import pytest

from aot.flow.passes import passes, track_in_passes
from aot.types import QueryPoints, Tracks

QUERIES = QueryPoints(np.arange(33, dtype=np.float32).reshape(11, 3), np.arange(11, dtype=np.int32) // 6 + 1)


class _Tracker:
    """Points stay on their query; records the points of every pass."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []

    def __call__(self, queries: QueryPoints) -> Tracks:
        self.passes.append((queries.txy[:, 0] // 3).astype(int).tolist())
        xy = np.repeat(queries.txy[None, :, 1:], 4, axis=0)
        probability = np.repeat(queries.txy[None, :, 0], 4, axis=0) / 100
        return Tracks(xy, probability > 0.1, probability, probability)


def test_passes_give_the_tracks_of_one_pass_in_the_same_order() -> None:
    together, apart = _Tracker(), _Tracker()
    expected, found = track_in_passes(together, QUERIES, None), track_in_passes(apart, QUERIES, 4)
    for name in ("xy", "visible", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert len(together.passes) == 1
    assert [len(points) for points in apart.passes] == [4, 4, 3]


def test_neighbours_are_in_different_passes() -> None:
    assert [points.tolist() for points in passes(7, 3)] == [[0, 3, 6], [1, 4], [2, 5]]


@pytest.mark.parametrize("points_at_once", [11, 100])
def test_points_that_fit_are_tracked_together(points_at_once: int) -> None:
    tracker = _Tracker()
    track_in_passes(tracker, QUERIES, points_at_once)
    assert len(tracker.passes) == 1
