"""A regular grid over the frame, restricted to the mask: the points that CoTracker's own demo tracks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from aot.types import BoolArray, Float32Array

# Distance of the grid from all four borders as a fraction of the frame's WIDTH, as in CoTracker's
# get_points_on_a_grid.
MARGIN_FRACTION = 1 / 64


class GridSampler:
    """Places grid_size x grid_size points over the frame; an object between grid points gets none.

    Args:
        grid_size: points along each side of the frame, ≥ 1.
    """

    def __init__(self, grid_size: Annotated[int, Ge(1)] = 10) -> None:
        self.grid_size = grid_size

    @property
    def max_points(self) -> int:
        return self.grid_size**2

    @property
    def points_advice(self) -> str:
        return f"use query_points=adaptive or a grid finer than query_points.grid_size={self.grid_size}"

    def spacing(self, area: int, frame_size: tuple[int, int]) -> float:
        """Distance in px between the grid's columns; a grid of one point has the width of the frame."""
        width = frame_size[1]
        return width * (1 - 2 * MARGIN_FRACTION) / max(1, self.grid_size - 1)

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose the grid points inside the mask, row by row.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 where no grid point is inside the mask.
        Source: get_points_on_a_grid, github.com/facebookresearch/co-tracker.
        """
        points = self._grid(*mask.shape)
        column, row = np.rint(points).astype(np.int64).T  # half to even, as torch rounds
        height, width = mask.shape
        # In frames narrower than 32 px the last positions are rounded to a pixel beyond the border, and in very wide
        # frames the margin, a fraction of the width, is more than the height.
        inside = (column < width) & (row >= 0) & (row < height)
        inside[inside] = mask[row[inside], column[inside]]
        return np.asarray(points[inside], dtype=np.float32)

    def _grid(self, height: int, width: int) -> Float32Array:
        """All grid points, (grid_size², 2) px; a grid of one point is the centre of the frame."""
        if self.grid_size == 1:
            return np.array([[width / 2, height / 2]], dtype=np.float32)
        margin = width * MARGIN_FRACTION
        x = np.linspace(margin, width - margin, self.grid_size, dtype=np.float32)
        y = np.linspace(margin, height - margin, self.grid_size, dtype=np.float32)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
