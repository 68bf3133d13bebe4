"""Run lengths are compatible with pycocotools in both directions."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco

from aot.images.masks import decode_rle, encode_rle, rle_area
from aot.types import RleMask

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: arrays(np.bool_, shape))


@given(mask=masks)
def test_round_trip(mask: np.ndarray) -> None:
    packed = encode_rle(mask)
    assert np.array_equal(decode_rle(packed), mask)
    assert rle_area(packed) == mask.sum()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 with NumPy 2
@given(seed=st.integers(0, 1000), height=st.integers(1, 300), width=st.integers(1, 300))
def test_pycocotools_reads_the_same(seed: int, height: int, width: int) -> None:
    """A few long runs, whose differences need several characters and are often negative."""
    rng = np.random.default_rng(seed)
    mask = np.repeat(rng.random(height * width // 37 + 1) < 0.4, 37)[: height * width].reshape(height, width)
    packed = encode_rle(mask)
    read = coco.decode({"size": [height, width], "counts": packed.counts.encode()})
    assert np.array_equal(read, mask)
    assert np.array_equal(decode_rle(packed), mask)


@pytest.mark.parametrize("counts", ["", "01", "0150000000" + "00", "P", "xx"])
def test_runs_that_do_not_add_up_are_refused(counts: str) -> None:
    with pytest.raises(ValueError, match="expected 5x5"):
        decode_rle(RleMask(5, 5, counts))
    with pytest.raises(ValueError, match="expected 5x5"):
        rle_area(RleMask(5, 5, counts))


@pytest.mark.parametrize("counts", ["Z" * 10**7, "11" * 5 * 10**6], ids=["one number", "many runs"])
def test_long_run_lengths_are_refused_at_once(counts: str) -> None:
    """Not after minutes: the numbers would grow, or millions of runs beyond the mask would be read."""
    before = time.process_time()
    with pytest.raises(ValueError, match="do not add up"):
        decode_rle(RleMask(5, 5, counts))
    assert time.process_time() - before < 0.5


def test_mask_larger_than_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 268435456 px"):
        decode_rle(RleMask(10**6, 10**6, ""))
