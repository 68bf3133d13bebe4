"""A lattice over the whole mask: every stride-th pixel of every stride-th row."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge

from aot.errors import SegmentationError
from aot.types import BoolArray, Float32Array


class DenseSampler:
    """Places a point on every stride-th pixel of the mask, its border included.

    Args:
        stride: distance in px between neighbouring points, ≥ 1.
        max_points: points per object, ≥ 1; an object with more is refused.
    """

    def __init__(self, stride: Annotated[int, Ge(1)] = 8, max_points: Annotated[int, Ge(1)] = 20_000) -> None:
        self.stride = stride
        self._max_points = max_points

    @property
    def max_points(self) -> int:
        return self._max_points

    @property
    def points_advice(self) -> str:
        return f"use query_points=adaptive or a smaller stride than query_points.stride={self.stride}"

    def max_points_on(self, frame_size: tuple[int, int]) -> int:
        """Points on an object that fills the frame."""
        height, width = frame_size
        return min(self._max_points, -(-height // self.stride) * -(-width // self.stride))

    def spacing(self, area: int, frame_size: tuple[int, int]) -> float:
        """Distance in px between neighbouring points: the stride."""
        return float(self.stride)

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose the pixels of the mask that lie on the lattice, row by row.

        The lattice is in the middle of the frame's first square of stride x stride px.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 where no point of the lattice is in the mask.
        Raises:
            SegmentationError: more than `max_points` are.
        """
        first = self.stride // 2
        row, column = np.nonzero(mask[first :: self.stride, first :: self.stride])
        if len(row) > self._max_points:
            raise SegmentationError(
                f"the mask of {int(mask.sum())} px has {len(row)} points at query_points.stride={self.stride}, "
                f"expected at most query_points.max_points={self._max_points}; use a larger stride or raise the limit"
            )
        return (np.stack([column, row], axis=1) * self.stride + first).astype(np.float32)
