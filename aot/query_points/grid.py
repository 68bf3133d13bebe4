"""A regular grid over the frame, kept where the mask is set: what CoTracker's own demo tracks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from aot.types import BoolArray, Float32Array

# The grid keeps this share of the frame's WIDTH from all four borders, as CoTracker's get_points_on_a_grid does.
MARGIN_FRACTION = 1 / 64


class GridSampler:
    """Lays grid_size x grid_size points over the frame; an object between two of them gets none."""

    def __init__(self, grid_size: Annotated[int, Ge(1)] = 10) -> None:
        """Keep the option; it is explained in conf/query_points/grid.yaml."""
        self.grid_size = grid_size

    @property
    def max_points(self) -> int:
        return self.grid_size**2

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose the points of the grid that lie inside the mask, row by row.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 where no point of the grid meets the mask.
        Source: get_points_on_a_grid, github.com/facebookresearch/co-tracker.
        """
        points = self._grid(*mask.shape)
        column, row = np.rint(points).astype(np.int64).T  # half to even, as torch rounds
        height, width = mask.shape
        # In frames narrower than 64 px the last positions round to a pixel beyond the border.
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        inside[inside] = mask[row[inside], column[inside]]
        return np.asarray(points[inside], dtype=np.float32)

    def _grid(self, height: int, width: int) -> Float32Array:
        """The points before the mask is looked at; a grid of one point is the middle of the frame."""
        if self.grid_size == 1:
            return np.array([[width / 2, height / 2]], dtype=np.float32)
        margin = width * MARGIN_FRACTION
        x = np.linspace(margin, width - margin, self.grid_size, dtype=np.float32)
        y = np.linspace(margin, height - margin, self.grid_size, dtype=np.float32)
        return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)
