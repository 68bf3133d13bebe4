"""Coverage of objects by valid points, and where new points are placed."""

from __future__ import annotations

import numpy as np
import pytest

from aot.flow.coverage import measure_coverage, spacing_px
from aot.flow.follow import FollowedTracks, Follower
from aot.flow.options import PointOptions
from aot.flow.reseed import new_points, worst_rows
from aot.images.compact import CompactMask
from aot.query_points.adaptive import AdaptiveSampler
from aot.query_points.grid import GridSampler
from aot.types import QueryPoints, Tracks

SIZE = (40, 120)
NUM_ROWS = 24
INDEX = np.arange(NUM_ROWS, dtype=np.int64)
SAMPLER = AdaptiveSampler(num_points=40, min_points=4, margin_px=1)


def block(left: int, right: int) -> CompactMask:
    mask = np.zeros(SIZE, np.bool_)
    mask[8:32, left:right] = True
    return CompactMask.of(mask)


def mask_on(frame: int) -> CompactMask:
    """An object that appears in the first half, from the left edge on, and stays."""
    return block(0, 10 + 4 * min(frame, 12))


def track(queries: QueryPoints) -> Tracks:
    """Every point stays where it is; it is visible where the object is."""
    xy = np.repeat(queries.txy[None, :, 1:], NUM_ROWS, axis=0)
    column, row = np.rint(queries.txy[:, 1:]).astype(np.int64).T
    visible = np.stack([mask_on(frame).contains(column, row) for frame in range(NUM_ROWS)])
    ones = visible.astype(np.float32)
    return Tracks(xy, visible, ones, ones)


def follow(fixed: frozenset[int] = frozenset(), **options: float) -> tuple[FollowedTracks, FollowedTracks]:
    """Tracks of the points of the first frame, and with added points."""
    follower = Follower(INDEX, SIZE, (3,), lambda frame: (mask_on(frame),), SAMPLER, PointOptions(**options), fixed)
    points = SAMPLER.sample(mask_on(0).in_frame(*SIZE))
    queries = QueryPoints(
        np.column_stack([np.zeros(len(points)), points]).astype(np.float32), np.full(len(points), 3, np.int32)
    )
    first = follower.measure(queries, track(queries))
    return first, follower.reseed(first, track)


def test_new_surface_is_covered_by_added_points() -> None:
    first, found = follow(reseed=True)
    assert first.coverage[-1, 0] < 0.4
    assert found.coverage[:, 0].min() >= 0.95
    assert found.num_added == len(found.queries) - len(first.queries) > 0


def test_the_tracks_that_were_there_do_not_change() -> None:
    first, found = follow(reseed=True)
    num = len(first.queries)
    for name in ("xy", "visible", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(found.tracks, name)[:, :num], getattr(first.tracks, name))
    np.testing.assert_array_equal(found.lifetimes.valid[:, :num], first.lifetimes.valid)
    np.testing.assert_array_equal(found.queries.txy[:num], first.queries.txy)


def test_added_points_lie_on_their_object_and_are_the_same_each_time() -> None:
    first, found = follow(reseed=True)
    added = found.queries.txy[len(first.queries) :]
    for frame, x, y in added.astype(np.int64):
        assert mask_on(int(frame)).contains(np.array([x]), np.array([y]))[0]
    np.testing.assert_array_equal(follow(reseed=True)[1].queries.txy, found.queries.txy)


@pytest.mark.parametrize("limit", [1, 7])
def test_the_number_of_added_points_is_limited(limit: int) -> None:
    assert follow(reseed=True, reseed_max_points=limit)[1].num_added == limit


def test_at_most_three_points_are_added_per_first_point() -> None:
    first, found = follow(reseed=True)
    assert found.num_added <= 3 * len(first.queries)


def test_an_object_whose_points_are_given_gets_no_others() -> None:
    assert follow(frozenset({3}), reseed=True)[1].num_added == 0


def test_a_covered_object_gets_no_points() -> None:
    assert follow(reseed=True, min_coverage=0.01)[1].num_added == 0


def test_coverage_counts_pixels_near_valid_points_in_the_mask() -> None:
    radius = 1.5 * spacing_px(SAMPLER, 24 * 60, SIZE)
    xy = np.array([[[5, 20], [55, 20], [100, 20]]], dtype=np.float32)
    valid = np.array([[True, False, True]])
    found = measure_coverage(
        xy, valid, np.full(3, 3, np.int32), (3,), INDEX[:1], lambda frame: (block(0, 60),), SAMPLER, SIZE
    )
    y, x = np.mgrid[8:32, :60]
    expected = (np.hypot(x - 5, y - 20) <= radius).mean()
    assert found[0, 0] == pytest.approx(expected, abs=0.01)


def test_an_object_without_a_mask_has_no_coverage() -> None:
    empty = CompactMask.of(np.zeros(SIZE, np.bool_))
    found = measure_coverage(
        np.zeros((2, 0, 2), np.float32), np.zeros((2, 0), np.bool_), np.zeros(0, np.int32), (3,), INDEX[:2],
        lambda frame: (empty,) if frame else None, SAMPLER, SIZE,
    )  # fmt: skip
    assert np.isnan(found).all()


def test_worst_rows_are_apart_and_below_the_limit() -> None:
    coverage = np.full(48, 0.99)
    coverage[10:30] = np.linspace(0.9, 0.5, 20)
    coverage[40] = np.nan
    area = np.full(48, 100)
    rows = worst_rows(coverage, area, 0.95)
    assert rows[0] == 29
    assert (np.diff(np.sort(rows)) > 4).all()
    assert (coverage[rows] < 0.95).all()
    assert len(worst_rows(np.zeros(1000), np.full(1000, 9), 0.95)) <= 6
    area[29] = 10
    assert worst_rows(coverage, area, 0.95)[0] == 28, "few pixels are uncovered where little of the object is seen"


def test_new_points_keep_their_distance() -> None:
    given = np.array([[10, 20], [14, 24]], dtype=np.float32)
    added = new_points(block(0, 60), given, 6.0, 100)
    every = np.concatenate([given, added])
    distance = np.linalg.norm(every[:, None] - every[None], axis=2)[len(given) :]
    distance[distance == 0] = np.inf
    assert len(added) > 10
    assert distance.min() > 6.0 - 0.1


def test_spacing_of_the_samplers() -> None:
    assert spacing_px(AdaptiveSampler(), 200 * 100, (480, 854)) == pytest.approx(10)
    assert spacing_px(GridSampler(11), 500, (480, 640)) == pytest.approx(62)
    assert spacing_px(_Plain(), 50 * 9, (480, 640)) == pytest.approx(3)


class _Plain:
    max_points = 50

    def sample(self, mask: np.ndarray) -> np.ndarray:
        raise NotImplementedError
