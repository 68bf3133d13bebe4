"""The query sampler: a mask in, points to track out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from aot.types import BoolArray, Float32Array


class QuerySampler(Protocol):
    """Chooses the points to track on an object."""

    @property
    def max_points(self) -> int:
        """Upper bound of the number of points that `sample` returns for one object of any size."""
        ...

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose points inside a mask.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 where no point can be placed.
        """
        ...


@runtime_checkable
class AdvisesOnPoints(Protocol):
    """A sampler that may place no point in a small mask, and knows what helps. Optional for a sampler."""

    @property
    def points_advice(self) -> str:
        """What to try if `sample` returned no point, as part of a sentence: "use …"."""
        ...


@runtime_checkable
class KnowsSpacing(Protocol):
    """A sampler that knows how far apart its points are on an object. Optional for a sampler.

    For others, `max_points` are assumed to be spread evenly over the object.
    """

    def spacing(self, area: int, frame_size: tuple[int, int]) -> float:
        """Distance in px between neighbouring points.

        Args:
            area: of the object's mask, px, ≥ 1.
            frame_size: height and width, px.
        """
        ...


@runtime_checkable
class LimitedByFrame(Protocol):
    """A sampler whose number of points depends on the size of the frame. Optional for a sampler."""

    def max_points_on(self, frame_size: tuple[int, int]) -> int:
        """Upper bound of the number of points on one object in a frame of this height and width."""
        ...
