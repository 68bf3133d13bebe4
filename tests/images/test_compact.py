"""Compact masks have the pixels, the area and the centre of the mask that they were made of."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from aot.images.compact import NO_MASK, CompactMask
from aot.types import BoolArray

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.booleans())


@given(masks)
def test_pixels_area_and_centre_are_those_of_the_mask(mask: BoolArray) -> None:
    compact = CompactMask.of(mask)
    assert np.array_equal(compact.in_frame(*mask.shape), mask)
    assert compact.area == np.count_nonzero(mask)
    if mask.any():
        y, x = np.nonzero(mask)
        assert compact.centre == (y.min() + (y - y.min()).mean(), x.min() + (x - x.min()).mean())
        assert np.array_equal(compact.pixels(), mask[y.min() : y.max() + 1, x.min() : x.max() + 1])
        assert (compact.row, compact.column) == (y.min(), x.min())
    else:
        assert compact is NO_MASK


@given(masks)
def test_contains_the_pixels_of_the_mask_and_none_outside_the_frame(mask: BoolArray) -> None:
    y, x = (grid.ravel() for grid in np.mgrid[-9 : mask.shape[0] + 9, -9 : mask.shape[1] + 9])
    expected = np.zeros((mask.shape[0] + 18, mask.shape[1] + 18), np.bool_)
    expected[9:-9, 9:-9] = mask
    assert np.array_equal(CompactMask.of(mask).contains(x, y), expected.ravel())


def test_a_mask_takes_one_bit_per_pixel_of_its_bounding_box() -> None:
    mask = np.zeros((1080, 1920), np.bool_)
    mask[100:400, 300:700] = True
    compact = CompactMask.of(mask)
    assert compact.bits.nbytes == 300 * 400 / 8
    assert compact.num_bytes < compact.bits.nbytes + 2000
