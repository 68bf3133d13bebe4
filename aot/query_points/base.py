"""The query sampler: a mask in, points to track out."""

from __future__ import annotations

from typing import Protocol

from aot.types import BoolArray, Float32Array


class QuerySampler(Protocol):
    """Chooses the points that stand for an object."""

    @property
    def max_points(self) -> int:
        """The most points that `sample` returns for one object, whatever its size."""
        ...

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose points inside a mask.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 where the rule finds no point.
        """
        ...
