"""The grid of CoTracker's demo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aot.query_points.base import QuerySampler
from aot.query_points.grid import GridSampler
from tests.query_points.contract import QuerySamplerContract

SMALL_MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 90)), elements=st.booleans())


class TestContract(QuerySamplerContract):
    @pytest.fixture
    def sampler(self) -> QuerySampler:
        return GridSampler()


def test_full_mask_gives_all_grid_points_row_by_row() -> None:
    points = GridSampler(grid_size=3).sample(np.ones((480, 640), dtype=np.bool_))
    x, y = [10, 320, 630], [10, 240, 470]  # the margin is 640 / 64 for both
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, [(x_, y_) for y_ in y for x_ in x])


def test_one_point_is_the_centre() -> None:
    np.testing.assert_array_equal(GridSampler(grid_size=1).sample(np.ones((11, 20), dtype=np.bool_)), [[10, 5.5]])


def test_points_are_rounded_half_to_even() -> None:
    mask = np.zeros((64, 96), dtype=np.bool_)
    mask[:, 2] = True  # the first column of the grid lies at 96 / 64 = 1.5, which rounds to 2
    points = GridSampler(grid_size=4).sample(mask)
    assert len(points) == 4
    assert (points[:, 0] == 1.5).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (8, 8)])
def test_tiny_and_narrow_frames_do_not_fail(shape: tuple[int, int]) -> None:
    points = GridSampler(grid_size=5).sample(np.ones(shape, dtype=np.bool_))
    assert points.ndim == 2
    assert points.shape[1] == 2


def test_positions_above_a_wide_frame_are_left_out() -> None:
    # The margin is 512 / 64 = 8 px, the frame is 6 px high: the rows of the grid lie at 8, 3 and -2.
    points = GridSampler(grid_size=3).sample(np.ones((6, 512), dtype=np.bool_))
    np.testing.assert_array_equal(points, [[8, 3], [256, 3], [504, 3]])


def test_empty_mask_gives_no_points() -> None:
    points = GridSampler().sample(np.zeros((30, 40), dtype=np.bool_))
    assert points.shape == (0, 2)
    assert points.dtype == np.float32


@given(mask=SMALL_MASKS, grid_size=st.integers(1, 12))
def test_every_point_lies_in_the_mask(mask: np.ndarray, grid_size: int) -> None:
    points = GridSampler(grid_size).sample(mask)
    column, row = np.rint(points).astype(int).T
    assert len(points) <= GridSampler(grid_size).max_points == grid_size**2
    assert (row >= 0).all()
    assert mask[row, column].all()
    assert len(np.unique(points, axis=0)) == len(points) or mask.shape[0] < 64  # narrow frames: margins may cross
