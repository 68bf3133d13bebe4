"""Tracking more points than fit into memory together, in several passes over the clip.

Points of one pass do not influence those of another: trackers that track jointly (CoTracker3, and lucas_kanade for lost
points) see fewer neighbours. Every pass has points from all over each object.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np

from aot.types import Int64Array, QueryPoints, Tracks

# Bytes per position of what is held besides the tracker: the tracks once, their comparison with the masks, and the
# copies that are made while points are added and while the file is written.
HELD_BYTES_PER_POSITION = 48


def track_in_passes(track: Callable[[QueryPoints], Tracks], queries: QueryPoints, points_at_once: int | None) -> Tracks:
    """Track N points, at most `points_at_once` in one pass.

    Args:
        track: tracks points through all kept frames.
        queries: N points.
        points_at_once: None: all in one pass.
    """
    if points_at_once is None or len(queries) <= points_at_once:
        return track(queries)
    found: Tracks | None = None
    for points in passes(len(queries), points_at_once):
        part = track(QueryPoints(queries.txy[points], queries.object_id[points]))
        if found is None:
            found = _empty(part, len(queries))
        for item in fields(Tracks):
            getattr(found, item.name)[:, points] = getattr(part, item.name)
    if found is None:
        raise ValueError("no query points, expected at least one")
    return found


def passes(num_points: int, points_at_once: int) -> list[Int64Array]:
    """The points of every pass: every n-th one, so that neighbours are in different passes."""
    num_passes = -(-num_points // points_at_once)
    return [np.arange(first, num_points, num_passes, dtype=np.int64) for first in range(num_passes)]


def _empty(part: Tracks, num_points: int) -> Tracks:
    """Tracks of N points to be filled, with as many rows as a part has."""
    shape = (len(part.xy), num_points)
    return Tracks(
        xy=np.empty((*shape, 2), dtype=np.float32),
        visible=np.empty(shape, dtype=np.bool_),
        visibility=np.empty(shape, dtype=np.float32),
        confidence=np.empty(shape, dtype=np.float32),
    )
