"""Points spread over a mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aot.query_points.adaptive import AdaptiveSampler
from aot.query_points.base import QuerySampler
from tests.query_points.contract import QuerySamplerContract

SMALL_MASKS = arrays(np.bool_, st.tuples(st.integers(1, 30), st.integers(1, 30)), elements=st.booleans())


class TestContract(QuerySamplerContract):
    @pytest.fixture
    def sampler(self) -> QuerySampler:
        return AdaptiveSampler()


def disc(height: int, width: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def distances(points: np.ndarray) -> np.ndarray:
    matrix = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(matrix, np.inf)
    return matrix


@given(mask=SMALL_MASKS, num_points=st.integers(1, 60), min_points=st.integers(1, 30), margin_px=st.integers(0, 6))
def test_points_are_mask_pixels_within_the_number_limits(
    mask: np.ndarray, num_points: int, min_points: int, margin_px: int
) -> None:
    sampler = AdaptiveSampler(num_points, min_points, spacing_px=3, margin_px=margin_px)
    points = sampler.sample(mask)
    column, row = points.astype(int).T
    assert points.dtype == np.float32
    assert points.shape[1] == 2
    assert mask[row, column].all()
    assert len(np.unique(points, axis=0)) == len(points) <= num_points
    # Small parts get no points, so the minimum applies to the area of the useful parts.
    assert len(points) >= min(num_points, min_points, largest_part(mask))
    np.testing.assert_array_equal(points, sampler.sample(mask.copy()))


def largest_part(mask: np.ndarray) -> int:
    if not mask.any():
        return 0
    return int(cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2][1:, cv2.CC_STAT_AREA].max())


@pytest.mark.parametrize("num_points", [10, 50, 200])
def test_spread_is_even_and_off_the_border(num_points: int) -> None:
    radius = 80
    points = AdaptiveSampler(num_points=num_points, margin_px=4).sample(disc(240, 320, 150, 110, radius))
    ideal = np.sqrt(np.pi * radius**2 / num_points)  # side of the square per point
    assert len(points) == num_points
    assert distances(points).min() > 0.6 * ideal
    assert np.linalg.norm(points - [150, 110], axis=1).max() < radius - 3


def test_number_grows_with_the_object() -> None:
    sampler = AdaptiveSampler(num_points=200, min_points=20, spacing_px=4)
    counts = [len(sampler.sample(disc(200, 200, 100, 100, radius))) for radius in (3, 15, 30, 60)]
    assert counts[0] == 20
    assert counts == sorted(counts)
    assert counts[2] == disc(200, 200, 100, 100, 30).sum() // 16
    assert counts[3] == 200


def test_every_useful_part_gets_points_and_noise_none() -> None:
    mask = disc(200, 300, 60, 100, 50) | disc(200, 300, 200, 100, 12)
    mask[10, 280] = True
    points = AdaptiveSampler(num_points=50).sample(mask)
    in_small_part = np.linalg.norm(points - [200, 100], axis=1) <= 12
    assert len(points) == 50
    assert 1 <= in_small_part.sum() <= 6
    assert not (points == [280, 10]).all(axis=1).any()


def test_one_pixel_gives_that_pixel() -> None:
    mask = np.zeros((480, 854), dtype=np.bool_)
    mask[479, 853] = True
    np.testing.assert_array_equal(AdaptiveSampler().sample(mask), [[853, 479]])


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_thin_lines_keep_their_points(thickness: int) -> None:
    mask = np.zeros((100, 300), dtype=np.uint8)
    cv2.line(mask, (10, 90), (290, 5), 1, thickness)
    points = AdaptiveSampler(num_points=30, min_points=30).sample(mask.astype(np.bool_))
    assert len(points) == 30
    assert distances(points).min() > 0.4 * 292 / 30


def test_thin_limb_of_a_thick_body_gets_points() -> None:
    mask = disc(200, 300, 60, 100, 50)
    mask[98:102, 100:290] = True
    points = AdaptiveSampler(num_points=100).sample(mask)
    assert (points[:, 0] > 150).sum() >= 3


def test_fewer_points_than_parts() -> None:
    mask = np.zeros((40, 40), dtype=np.bool_)
    mask[::4, ::4] = True
    assert len(AdaptiveSampler(num_points=7).sample(mask)) == 7
    assert len(AdaptiveSampler(num_points=200, min_points=200).sample(mask)) == 100


def test_empty_mask_gives_no_points() -> None:
    points = AdaptiveSampler().sample(np.zeros((30, 40), dtype=np.bool_))
    assert points.shape == (0, 2)
    assert points.dtype == np.float32
