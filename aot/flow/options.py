"""The options of points that follow their object: `query_points.reseed`, `query_points.drift_px` and so on."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict

MAX_ADDED_PER_POINT = 3
"""Added points per object, at most, per point that it started with."""


class PointOptions(BaseModel):
    """Keys that every option of `query_points` has, besides the arguments of its class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reseed: bool = False
    """Whether points are added where an object becomes uncovered."""
    min_coverage: Annotated[float, Gt(0), Le(1)] = 0.95
    """A frame below this coverage gets more points."""
    reseed_rounds: Annotated[int, Ge(1)] = 2
    """Passes of the tracker over the clip for added points, at most."""
    reseed_max_points: Annotated[int, Ge(1)] = 600
    """Points added to one object, at most; and at most three times as many as it started with."""
    points_at_once: Annotated[int, Ge(1)] | None = None
    """More points are tracked in several passes over the clip; None: all in one."""
    drift_px: Annotated[float, Ge(0)] = 4.0
    """Distance in source px from the object's mask up to which a visible position is not outside it."""
    drift_frames: Annotated[int, Ge(0)] = 1
    """A track ends where it is outside on more than this many kept frames."""
