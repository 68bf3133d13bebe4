from __future__ import annotations

import numpy as np
import pytest

from aot.errors import SegmentationError
from aot.query_points.base import QuerySampler
from aot.query_points.dense import DenseSampler
from tests.query_points.contract import QuerySamplerContract


class TestContract(QuerySamplerContract):
    @pytest.fixture
    def sampler(self) -> QuerySampler:
        return DenseSampler(stride=3)


def test_every_stride_th_pixel_of_the_mask_is_a_point() -> None:
    mask = np.zeros((12, 20), np.bool_)
    mask[4:10, 5:13] = True
    assert DenseSampler(4).sample(mask).tolist() == [[6, 6], [10, 6]]
    assert len(DenseSampler(1).sample(mask)) == mask.sum()


def test_more_points_than_the_limit_are_refused() -> None:
    with pytest.raises(SegmentationError, match=r"100 points at query_points.stride=2.*max_points=99; use a larger"):
        DenseSampler(2, max_points=99).sample(np.ones((20, 20), np.bool_))


@pytest.mark.parametrize(("size", "stride"), [((480, 854), 8), ((7, 5), 3), ((5, 5), 9)])
def test_the_bound_by_the_frame_holds_for_a_full_mask(size: tuple[int, int], stride: int) -> None:
    sampler = DenseSampler(stride)
    assert len(sampler.sample(np.ones(size, np.bool_))) <= sampler.max_points_on(size) <= sampler.max_points
