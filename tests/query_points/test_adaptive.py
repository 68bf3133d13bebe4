"""Points spread over a mask."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aot.query_points.adaptive import NUM_CANDIDATES, AdaptiveSampler
from aot.query_points.base import QuerySampler
from aot.query_points.spreading import thinned
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


def sample_set(mask: np.ndarray, **options: int) -> set[tuple[int, int]]:
    return {(int(x), int(y)) for x, y in AdaptiveSampler(**options).sample(mask)}


def rectangle(shape: tuple[int, int], x: range, y: range) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    mask[y.start : y.stop, x.start : x.stop] = True
    return mask


@pytest.mark.parametrize(
    ("areas", "count", "expected"),
    [
        # The largest quotients area / 1, area / 2, … win; every part gets its first point.
        ((600, 300, 90), 8, (5, 2, 1)),  # 600/5 = 120 > 300/3 = 100
        ((600, 300, 90), 9, (6, 2, 1)),  # 600/6 = 100 = 300/3: the larger part
        ((500, 480), 3, (2, 1)),
        ((500, 480), 4, (2, 2)),
        ((400, 100), 10, (8, 2)),  # 400/9 < 100/2
        ((400, 90, 80), 2, (1, 1, 0)),
    ],
)
def test_points_per_part_by_the_highest_quotients(
    areas: tuple[int, ...], count: int, expected: tuple[int, ...]
) -> None:
    mask = np.zeros((20 * len(areas), 130), np.bool_)
    for number, area in enumerate(areas):  # rows of 10 px height, far apart
        mask[20 * number : 20 * number + 10, : area // 10] = True
    points = AdaptiveSampler(num_points=count, min_points=count, margin_px=0).sample(mask)
    found = [int((points[:, 1] // 20 == number).sum()) for number in range(len(areas))]
    assert found == list(expected)


@pytest.mark.parametrize(("margin_px", "kept"), [(0, range(10, 34)), (1, range(11, 33)), (4, range(15, 29))])
def test_margin_is_kept_where_the_object_is_wide(margin_px: int, kept: range) -> None:
    """As many points as pixels that are deeper than the margin: exactly these are chosen.

    Distances are those of OpenCV's 3x3 mask, 0.955 px per pixel, so that at a margin of 4 px five pixels are kept.
    """
    mask = rectangle((50, 60), range(10, 34), range(10, 34))
    count = len(kept) ** 2
    found = sample_set(mask, num_points=count, min_points=count, margin_px=margin_px)
    assert found == {(x, y) for x in kept for y in kept}


def test_edge_of_the_frame_is_a_border_of_the_object() -> None:
    full = np.ones((30, 40), np.bool_)
    found = sample_set(full, num_points=600, min_points=600, margin_px=4)
    assert found == {(x, y) for x in range(5, 35) for y in range(5, 25)}
    for mask in (full, rectangle((30, 40), range(20, 40), range(0, 30))):
        x, y = AdaptiveSampler(num_points=50, margin_px=4).sample(mask).T
        assert x.max() <= 40 - 1 - 4
        assert y.min() >= 4
        assert y.max() <= 30 - 1 - 4


def test_first_point_is_the_deepest() -> None:
    mask = disc(100, 120, 70, 40, 30) | rectangle((100, 120), range(0, 50), range(38, 43))
    for num_points in (1, 5):
        points = AdaptiveSampler(num_points=num_points, min_points=1).sample(mask)
        np.testing.assert_array_equal(points[0], [70, 40])


@pytest.mark.parametrize(("length", "has_points"), [(4, False), (40, True)])
def test_limbs_get_points_but_hairs_do_not(length: int, has_points: bool) -> None:
    """A limb reaches farther from the body than two margins; a hair does not."""
    body, edge = rectangle((120, 200), range(10, 90), range(20, 100)), 90
    limb = rectangle((120, 200), range(edge, edge + length), range(60, 64))
    points = AdaptiveSampler(num_points=150, min_points=150, margin_px=4).sample(body | limb)
    assert (points[:, 0] >= edge).any() == has_points


def test_large_parts_are_thinned_evenly() -> None:
    """With many more pixels than candidates, the pixels considered are on a lattice over the entire part."""
    mask = rectangle((400, 600), range(0, 600), range(0, 400))
    points = AdaptiveSampler(num_points=NUM_CANDIDATES, min_points=1, spacing_px=1, margin_px=0).sample(mask)
    assert len(points) == NUM_CANDIDATES
    side = (400 * 600 / NUM_CANDIDATES) ** 0.5
    assert distances(points).min() > 0.5 * side
    covered = np.zeros((5, 5), np.bool_)
    covered[(points[:, 1] // 80).astype(int), (points[:, 0] // 120).astype(int)] = True
    assert covered.all()


@pytest.mark.parametrize("num_cells", [1, 3, 40, 90, 10_000])
def test_thinning_keeps_one_pixel_per_cell(num_cells: int) -> None:
    """In a lattice of cells of one side, all occupied cells keep one pixel, those of thin places too."""
    mask = rectangle((60, 70), range(13, 61), range(11, 57))
    mask[1, 1] = mask[58, 66:70] = True
    xy = np.stack(np.nonzero(mask)[::-1], axis=1)
    side = max(1, int((len(xy) / num_cells) ** 0.5))
    kept = thinned(xy, num_cells)
    cells = [(x // side, y // side) for x, y in kept]
    assert len(cells) == len(set(cells))
    assert set(cells) == {(x // side, y // side) for x, y in xy}
    assert {(x, y) for x, y in kept} <= {(x, y) for x, y in xy}


@pytest.mark.parametrize(("noise_px", "gets_points"), [(9, False), (10, True)])
def test_noise_is_a_part_below_half_a_percent(noise_px: int, gets_points: bool) -> None:
    mask = rectangle((60, 220), range(0, 199), range(0, 10))  # with 10 px of noise: 2000 px
    mask[40, 50 : 50 + noise_px] = True
    points = AdaptiveSampler(num_points=100).sample(mask)
    assert (points[:, 1] == 40).any() == gets_points


@pytest.mark.parametrize(("spacing_px", "expected"), [(1, 200), (4, 100), (5, 64), (8, 25), (20, 20)])
def test_one_point_per_square_between_the_limits(spacing_px: int, expected: int) -> None:
    mask = rectangle((60, 60), range(10, 50), range(10, 50))
    assert len(AdaptiveSampler(num_points=200, min_points=20, spacing_px=spacing_px).sample(mask)) == expected


def test_max_points_is_the_limit() -> None:
    assert AdaptiveSampler(num_points=7).max_points == 7
