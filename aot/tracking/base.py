"""The tracker: query points in, one trajectory per point out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import TrackingError
from aot.types import Int64Array, QueryPoints, Tracks


class Tracker(Protocol):
    """Tracks points through the frames of a clip. One instance serves many clips, one after another."""

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        """Track every query point on every kept frame, before and after its own frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N ≥ 1 points; t is a source frame, x and y source px.
            lean: the second rung of the out-of-memory ladder: smaller blocks, features off the device; same results.
        Returns:
            Tracks with T = len(frames.index) rows; on its query frame a track has the query's position and is visible.
        Raises:
            TrackingError: the points could not be tracked.
            OutOfMemory: memory ran out.
        """
        ...

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        """Upper bound in bytes of the peak memory of `track` on its device, excluding the model.

        Opens no file and loads no model.

        Args:
            num_frames: kept frames of the clip.
            num_points: query points of all objects.
            width, height: size of the source in px.
            lean: as for `track`.
        """
        ...


TrackPoints = Callable[[QueryPoints], Tracks]
"""Tracks query points through one clip; see `Tracker.track`."""


@runtime_checkable
class KeepsFeatures(Protocol):
    """A tracker that computes what it needs of a clip once, for several groups of points."""

    def on_clip(
        self, frames: FrameSource, *, num_points: int, lean: bool = False
    ) -> AbstractContextManager[TrackPoints]:
        """A function that tracks points as `Tracker.track` does; what it keeps of the clip is released on exit.

        Args:
            frames, lean: as for `Tracker.track`.
            num_points: in one group, at most.
        """
        ...


def tracking_on_clip(
    tracker: Tracker, frames: FrameSource, *, num_points: int, lean: bool
) -> AbstractContextManager[TrackPoints]:
    """A function that tracks several groups of points through one clip; see `KeepsFeatures.on_clip`."""
    if isinstance(tracker, KeepsFeatures):
        return tracker.on_clip(frames, num_points=num_points, lean=lean)
    return nullcontext(lambda points: tracker.track(frames, points, lean=lean))


def query_rows(frames: FrameSource, queries: QueryPoints) -> Int64Array:
    """(N,) row of every query's frame among the kept frames.

    Raises:
        TrackingError: a query's frame is not kept.
    """
    try:
        return frames.rows(queries.txy[:, 0].astype(np.int64))
    except KeyError as exc:
        raise TrackingError(f"the frame of a query is not kept: {exc.args[0]}; keep the query frames") from exc
