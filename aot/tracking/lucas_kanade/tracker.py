"""Pyramidal Lucas-Kanade with OpenCV: no weights, no GPU, both directions from any query frame.

A single point is easily pulled along by a textured background behind a thin limb. Therefore every point moves with a
small cloud of helper pixels around it, placed again on every frame: each helper is tracked forwards and back
(forward-backward error, Kalal et al. 2010), and the cloud votes. A helper's vote is weighted by its forward-backward
error and by how similar its colour is to the point's colour on its query frame, so that the vote stays with the object.
A point whose cloud no longer returns, or no longer resembles its appearance at the query, is lost: it is marked as not
visible and carried by the motion of its neighbours on the same object until its appearance matches again.

Measured with benchmarks/tracking_quality.py: PCK@0.2 on the joints of BADJA's bear, camel and horsejump-high is 0.77,
0.78, 0.49, compared with 0.67, 0.71, 0.35 for plain Lucas-Kanade; with additional points sampled over the object it is
0.74, 0.83, 0.59. The constants were chosen on these clips; moving the queries by 1.5 px at random changes a clip by
about 0.03.
Tried without gain: larger windows, Lucas-Kanade on colours, carrying points by their full path since the query
instead of the last step, additional internal points between sparse queries. Moving outliers back to an
affine shape of their object gained 0.02 to 0.05, and lost 0.38 on a stone that turns by 200 degrees (the demo's
`spin`). Dense DIS flow, where it was better than plain Lucas-Kanade, took 50 ms per frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Gt

from aot.decoding.base import BACKWARD_BYTES, FrameSource
from aot.errors import OutOfMemory, TrackingError
from aot.tracking.base import query_rows
from aot.tracking.lucas_kanade.carrying import carry_along
from aot.tracking.lucas_kanade.cloud import (
    COLOUR_TOLERANCE,
    VOTE_ERROR,
    WorkingFrame,
    cloud_offsets,
    cloud_size,
    colours_at,
    elect,
    is_inside,
    to_source,
    to_working,
    working_frame,
)
from aot.types import Float32Array, Int32Array, Int64Array, QueryPoints, Tracks, UInt8Array

# A point is visible, and not lost, from this probability on.
VISIBLE_PROBABILITY = 0.5


class LucasKanadeTracker:
    """Tracks points by sparse optical flow, each with a cloud of helper pixels.

    `visibility` = 1 / (1 + (e / max_return_error_px)²) · similarity. e is the smallest forward-backward error in the
    point's cloud, in working px; similarity, at most 1, is how much of the cloud has the point's colour, relative to
    the query frame. `visible` means 0.5 or more, inside the frame.
    `confidence` = visibility · agreement, the fraction of the cloud's votes that agree with the winner.
    Both are 1 at the query.

    Args:
        window_px: side of the patch whose motion is measured, in working px, ≥ 3; larger ones are steadier on weak
            texture, smaller ones are more accurate on thin parts.
        pyramid_levels: how often the frame is halved, ≥ 0; each level doubles the largest motion between kept frames
            that is found.
        max_return_error_px: forward-backward error in working px at which visibility is halved, > 0.
        max_helpers: helper pixels per frame for all points together, ≥ 0; more are steadier and slower.
        max_side_px: length of the longer side in px to which larger frames are scaled down for measuring, ≥ 16;
            positions stay in source px.
    """

    def __init__(
        self,
        window_px: Annotated[int, Ge(3)] = 9,
        pyramid_levels: Annotated[int, Ge(0)] = 3,
        max_return_error_px: Annotated[float, Gt(0)] = 3.0,
        max_helpers: Annotated[int, Ge(0)] = 2000,
        max_side_px: Annotated[int, Ge(16)] = 960,
    ) -> None:
        self.window_px = window_px
        self.pyramid_levels = pyramid_levels
        self.max_return_error_px = max_return_error_px
        self.max_helpers = max_helpers
        self.max_side_px = max_side_px

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        """Track every query point on every kept frame, before and after its own frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N points; t is a source frame, x and y source px.
            lean: no effect; never more than two frames of a clip are held.
        Returns:
            Tracks; the class documents the probabilities.
        Raises:
            TrackingError: a query's frame is not among the kept ones, or OpenCV failed.
            OutOfMemory: OpenCV could not allocate memory.
        """
        rows = query_rows(frames, queries)
        tracks = _empty_tracks(len(frames.index), len(queries))
        if len(queries):
            last = len(frames.index) - 1
            with _opencv_errors():
                self._sweep(frames, np.arange(rows.min(), last + 1), rows, queries, tracks)
                if rows.max() > 0:
                    self._sweep(frames, np.arange(rows.max(), -1, -1), rows, queries, tracks)
        return tracks

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        """Upper bound in bytes of the peak memory of `track`; most of it is for frames decoded ahead."""
        frame_bytes = 3 * width * height
        # Blocks of frames when read backwards: in use, being reordered, and decoded ahead.
        decoded = 3 * min(max(BACKWARD_BYTES, frame_bytes), num_frames * frame_bytes)
        scale = min(1.0, self.max_side_px / max(width, height))
        # A frame at working size, OpenCV's pyramids of two grey images and the 16-bit derivatives of one.
        images = 12 * math.ceil(frame_bytes * scale**2)
        cloud = cloud_size(num_points, self.max_helpers)
        # Flow differences between all helpers of a cloud; then every lost point against every carrier.
        votes = num_points * cloud * (16 * cloud + 200)
        carried = 6 * num_points**2 + 2000 * num_points
        return decoded + images + max(votes, carried) + 17 * num_frames * num_points

    def _sweep(
        self, frames: FrameSource, order: Int64Array, rows: Int64Array, queries: QueryPoints, tracks: Tracks
    ) -> None:
        """Track the queries along the rows in `order`, each from its own row on, and write their positions."""
        scale = min(1.0, self.max_side_px / max(frames.width, frames.height))
        state = _SweepState(self, to_working(queries.txy[:, 1:], scale), queries.object_id)
        position = iter(order)
        for block in frames.blocks(frames.index[order]):
            for rgb in block.rgb:
                row = next(position)
                frame = working_frame(rgb, scale)
                state.advance(frame)
                state.admit(np.flatnonzero(rows == row), frame)
                state.write(tracks, row, scale)
        own = np.arange(len(queries))
        tracks.xy[rows, own] = queries.txy[:, 1:]


class _SweepState:
    """Positions and probabilities of all points during one sweep; points not yet admitted do not change.

    Args:
        options: the tracker whose options apply.
        query: (N, 2) query positions in working px.
        object_id: (N,).
    """

    def __init__(self, options: LucasKanadeTracker, query: Float32Array, object_id: Int32Array) -> None:
        num = len(query)
        self.options = options
        self.query = query
        self.object_id = object_id
        self.active = np.zeros(num, dtype=np.bool_)
        self.xy = query.copy()
        self.visibility = np.ones(num, dtype=np.float32)
        self.confidence = np.ones(num, dtype=np.float32)
        self.query_colour = np.zeros((num, 3), dtype=np.float32)
        self.query_votes = np.ones(num, dtype=np.float32)
        self.cloud, self.nearness = cloud_offsets(cloud_size(num, options.max_helpers))
        self.frame: WorkingFrame | None = None

    def admit(self, points: Int64Array, frame: WorkingFrame) -> None:
        """Start the points whose query lies on this frame."""
        self.frame = frame
        if not len(points):
            return
        self.active[points] = True
        self.query_colour[points] = colours_at(frame, self.query[points, None])[:, 0]
        self.query_votes[points] = self._votes(points, self.query[points], frame).sum(axis=1)

    def advance(self, frame: WorkingFrame) -> None:
        """Move the started points to the next frame."""
        points = np.flatnonzero(self.active)
        if self.frame is None or not len(points):
            return
        before, old = self.xy[points], self.frame
        helpers = before[:, None] + self.cloud
        moved, error = self._flow(old.grey, frame.grey, helpers)
        votes = self._votes(points, before, old) / (1 + (error / VOTE_ERROR) ** 2)
        flow, agreement = elect(moved - helpers, votes)
        after = before + flow

        returns = 1 / (1 + (error.min(axis=1) / self.options.max_return_error_px) ** 2)
        returns *= is_inside(after, frame)
        similarity = np.minimum(self._votes(points, after, frame).sum(axis=1) / self.query_votes[points], 1)
        self.visibility[points] = returns * similarity
        self.confidence[points] = self.visibility[points] * agreement
        self.xy[points] = self._carry(points, before, after, returns)
        # Beyond the border a carried position must not grow without bound.
        size = np.array(frame.grey.shape[::-1], dtype=np.float32)
        self.xy[points] = np.clip(self.xy[points], -size, 2 * size)

    def write(self, tracks: Tracks, row: int, scale: float) -> None:
        """Write the started points to one row of the tracks."""
        at = self.active
        tracks.xy[row, at] = to_source(self.xy[at], scale)
        tracks.visibility[row, at] = self.visibility[at]
        tracks.confidence[row, at] = self.confidence[at]
        tracks.visible[row, at] = self.visibility[at] >= VISIBLE_PROBABILITY

    def _votes(self, points: Int64Array, xy: Float32Array, frame: WorkingFrame) -> Float32Array:
        """Weight of each helper's vote by colour and distance: (L, M)."""
        colour = colours_at(frame, xy[:, None] + self.cloud)
        difference = np.abs(colour - self.query_colour[points, None]).sum(axis=2)
        return np.asarray(np.exp(-difference / COLOUR_TOLERANCE) * self.nearness, dtype=np.float32)

    def _flow(self, old: UInt8Array, new: UInt8Array, helpers: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Position of every helper on the new frame, and its forward-backward error: (L, M, 2), (L, M)."""
        start = np.ascontiguousarray(helpers.reshape(-1, 1, 2))
        forward = _lucas_kanade(old, new, start, self.options)
        back = _lucas_kanade(new, old, forward, self.options)
        error = np.linalg.norm(back - start, axis=2)
        return forward.reshape(helpers.shape), error.reshape(helpers.shape[:2])

    def _carry(
        self, points: Int64Array, before: Float32Array, after: Float32Array, returns: Float32Array
    ) -> Float32Array:
        """Move the lost points along with the visible points of their object.

        Where all points of an object are lost, those that return (forward-backward) lead: light or pose has changed,
        and only flow is left to rely on. Where none returns, all stay where they are.
        """
        carried: Float32Array = before.copy()
        for object_id in np.unique(self.object_id[points]):
            own = self.object_id[points] == object_id
            leads = own & (self.visibility[points] >= VISIBLE_PROBABILITY)
            if not leads.any():
                leads = own & (returns >= VISIBLE_PROBABILITY)
            follows = own & ~leads
            carried[leads] = after[leads]
            if leads.any() and follows.any():
                carried[follows] = carry_along(before[follows], before[leads], after[leads])
        return carried


def _lucas_kanade(old: UInt8Array, new: UInt8Array, start: Float32Array, options: LucasKanadeTracker) -> Float32Array:
    """Positions (P, 1, 2) on the new image of positions on the old one, both (h, w) grey."""
    window = (options.window_px, options.window_px)
    end, _, _ = cv2.calcOpticalFlowPyrLK(
        old, new, start, np.empty_like(start), winSize=window, maxLevel=options.pyramid_levels
    )
    return np.asarray(end, dtype=np.float32)


def _empty_tracks(num_rows: int, num_points: int) -> Tracks:
    """Arrays to fill in."""
    shape = (num_rows, num_points)
    return Tracks(
        xy=np.zeros((*shape, 2), dtype=np.float32),
        visible=np.zeros(shape, dtype=np.bool_),
        visibility=np.zeros(shape, dtype=np.float32),
        confidence=np.zeros(shape, dtype=np.float32),
    )


@contextmanager
def _opencv_errors() -> Iterator[None]:
    """Map OpenCV's errors to ours."""
    try:
        yield
    except cv2.error as exc:
        if exc.code == cv2.Error.StsNoMem:
            raise OutOfMemory("out of memory in OpenCV's optical flow; lower tracker.max_side_px") from exc
        raise TrackingError(
            f"OpenCV could not compute optical flow: {exc}; try another tracker.max_side_px, and please report it"
        ) from exc
