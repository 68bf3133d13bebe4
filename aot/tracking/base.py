"""The tracker: query points in, one trajectory a point out."""

from __future__ import annotations

from typing import Protocol

from aot.decoding.base import FrameSource
from aot.types import QueryPoints, Tracks


class Tracker(Protocol):
    """Follows points through the frames of a clip. One instance serves many clips, one after another."""

    def track(self, frames: FrameSource, queries: QueryPoints) -> Tracks:
        """Track every query point on every kept frame, before and after its own frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N ≥ 1 points; t is a source frame, x and y source px.
        Returns:
            Tracks with T = len(frames.index) rows; at its own frame a track is its query and visible.
        Raises:
            TrackingError: the points could not be tracked.
            OutOfMemory: memory ran out.
        """
        ...
