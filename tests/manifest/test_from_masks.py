"""Prompts created from annotated masks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aot.manifest.from_masks import points_inside


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=7))
def test_points_are_inside_the_mask(rows: list[list[bool]]) -> None:
    mask = np.array(rows, dtype=np.bool_)
    if mask.any():
        points = points_inside(mask)
        assert 1 <= len(points) <= 3
        assert all(mask[int(y), int(x)] for x, y in points)
