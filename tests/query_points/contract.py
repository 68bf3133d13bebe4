"""The contract of every query sampler (`aot.query_points.base`), as a test class to inherit from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aot.query_points.base import QuerySampler

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 90)), elements=st.booleans())


class QuerySamplerContract:
    """To inherit from; requires a fixture `sampler`."""

    @pytest.fixture
    def sampler(self) -> QuerySampler:
        raise NotImplementedError

    # All examples intentionally use one sampler, as all masks of a run do.
    @settings(
        deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(mask=MASKS)
    def test_points_are_inside_the_mask_and_deterministic(self, sampler: QuerySampler, mask: np.ndarray) -> None:
        before = mask.copy()
        points = sampler.sample(mask)
        assert points.dtype == np.float32
        assert points.ndim == 2
        assert points.shape[1] == 2
        column, row = np.rint(points).astype(int).T
        assert mask[row, column].all()
        np.testing.assert_array_equal(points, sampler.sample(mask))
        np.testing.assert_array_equal(mask, before)

    def test_full_mask_gives_points_and_empty_mask_none(self, sampler: QuerySampler) -> None:
        assert len(sampler.sample(np.ones((48, 64), np.bool_))) > 0
        assert sampler.sample(np.zeros((48, 64), np.bool_)).shape == (0, 2)
