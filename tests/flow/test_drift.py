"""Tracks end where they stay outside their object's mask."""

from __future__ import annotations

import numpy as np

from aot.flow.comparison import MaskComparison, compare_with_masks
from aot.flow.drift import find_lifetimes, trusted_masks
from aot.images.compact import CompactMask
from aot.lifetimes import Lifetimes

NUM_ROWS = 10
INDEX = np.arange(NUM_ROWS, dtype=np.int64) * 2


def lifetimes(
    near: str, visible: str = "x" * NUM_ROWS, query: int = 2, area: int = 100, has_mask: bool = True
) -> Lifetimes:
    """The lifetime of one track that ends with its third position outside."""
    is_near = np.array([[letter == "x"] for letter in near])
    compared = MaskComparison(is_near, is_near, np.full((NUM_ROWS, 1), area), np.full(NUM_ROWS, has_mask), {})
    shown = np.array([[letter == "x"] for letter in visible])
    return find_lifetimes(shown, compared, np.array([query]), np.array([0]), INDEX, 2)


def valid(found: Lifetimes) -> str:
    return "".join("x" if one else "." for one in found.valid[:, 0])


def test_a_track_ends_before_the_first_of_too_many_positions_outside() -> None:
    found = lifetimes("xxxx......")
    assert valid(found) == "xxxx......"
    assert (found.born[0], found.ended[0]) == (0, 6)


def test_a_track_ends_in_both_directions_from_its_query() -> None:
    found = lifetimes("....xxx...", query=5)
    assert valid(found) == "....xxx..."
    assert (found.born[0], found.ended[0]) == (8, 12)


def test_a_track_that_comes_back_does_not_end() -> None:
    found = lifetimes("xxxx..x..x")
    assert valid(found) == "x" * NUM_ROWS
    assert (found.born[0], found.ended[0]) == (0, -1)


def test_a_position_that_is_not_visible_proves_nothing() -> None:
    assert valid(lifetimes("xxx...xxxx", visible="xxx...xxxx")) == "xxx...xxxx"
    assert valid(lifetimes("xxxx.....x", visible="xxxx.x.xx.")) == "xxxx......", "three visible ones lie outside"


def test_frames_without_a_mask_and_queries_outside_their_mask_are_not_judged() -> None:
    assert valid(lifetimes("xxx.......", area=0, has_mask=False)) == "x" * NUM_ROWS
    assert valid(lifetimes("xx........")) == "x" * NUM_ROWS


def test_no_position_is_valid_where_the_mask_is_empty_but_the_track_does_not_end() -> None:
    is_near = np.ones((NUM_ROWS, 1), np.bool_)
    area = np.full((NUM_ROWS, 1), 100)
    is_near[4:7], area[4:7] = False, 0
    compared = MaskComparison(is_near, is_near, area, np.ones(NUM_ROWS, np.bool_), {})
    found = find_lifetimes(np.ones((NUM_ROWS, 1), np.bool_), compared, np.array([2]), np.array([0]), INDEX, 1)
    assert valid(found) == "xxxx...xxx"
    assert found.ended[0] == -1


def test_a_mask_that_has_lost_most_of_its_area_is_not_trusted() -> None:
    area = np.full((NUM_ROWS, 1), 100)
    area[4], area[6] = 40, 60
    assert np.flatnonzero(~trusted_masks(area)[:, 0]).tolist() == [4]


def test_positions_are_near_up_to_the_tolerance() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[5:10, 8:12] = True
    xy = np.array([[[9, 7], [14, 7], [15, 7], [13, 11], [-200, 3], [29, 19]]], dtype=np.float32)
    compared = compare_with_masks(
        xy, np.ones(6, np.int32), (1,), np.array([0]), lambda frame: (CompactMask.of(mask),), 3.0
    )
    assert compared.in_mask[0].tolist() == [True, False, False, False, False, False]
    assert compared.is_near[0].tolist() == [True, True, False, True, False, False]
    assert compared.area.tolist() == [[20]]


def test_points_are_compared_with_the_mask_of_their_own_object() -> None:
    left, right = np.zeros((2, 6, 40), np.bool_)
    left[:, :5], right[:, 35:] = True, True
    xy = np.array([[[2, 2], [2, 2], [38, 2], [38, 2]]], dtype=np.float32)
    ids = np.array([1, 4, 1, 4], np.int32)
    compared = compare_with_masks(
        xy, ids, (1, 4), np.array([7]), lambda frame: (CompactMask.of(left), CompactMask.of(right)), 8.0
    )
    assert compared.is_near[0].tolist() == [True, False, False, True]
