"""Positions as fractions of the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import aot
from aot.coordinates import as_fractions
from tests.results import write_result


def test_edges_of_the_frame_are_0_and_1() -> None:
    corners = np.array([[-0.5, -0.5], [0, 0], [31.5, 23.5], [63.5, 47.5]], dtype=np.float32)
    found = as_fractions(corners, 64, 48)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0], [0.5 / 64, 0.5 / 48], [0.5, 0.5], [1, 1]], rtol=1e-6)


def test_positions_of_a_result(tmp_path: Path) -> None:
    masks = np.zeros((2, 1, 20, 40), dtype=np.bool_)
    result = aot.load(write_result(tmp_path / "a.h5", masks=masks, queries=[(0, 9.5, 4.5, 1), (0, 39.5, 0, 1)]))
    assert result.xy() is result.tracks.xy
    np.testing.assert_allclose(result.xy(normalised=True), [[[0.25, 0.25], [1, 0.025]]] * 2, rtol=1e-6)
    part = result.select(frames=[1])
    assert part.xy(normalised=True).shape == (1, 2, 2)
