"""Pyramidal Lucas-Kanade with OpenCV: no weights, no GPU, both directions from any query frame.

A point alone is easily pulled along by a textured background behind a thin limb. Here every point moves with a small
cloud of helper pixels around it, laid out afresh on every frame: each helper is followed forwards and back
(forward-backward error, Kalal et al. 2010), and the cloud votes. A helper's vote counts by how well it came back and
by how much its colour looks like the point's own colour on its query frame, so that the vote stays with the object.
A point whose cloud no longer comes back, or no longer looks like itself, is lost: it is marked so and carried by the
motion of its neighbours on the same object until what lies under it looks right again.

Measured with benchmarks/tracking_quality.py: PCK@0.2 on the joints of BADJA's bear, camel and horsejump-high is 0.77,
0.78, 0.49, where plain Lucas-Kanade has 0.67, 0.71, 0.35; with points sampled all over the object besides 0.74, 0.83,
0.59. The constants below were chosen on these clips; queries moved by 1.5 px at random change a clip by about 0.03.
Tried there and of no use: larger windows, Lucas-Kanade on colours, carrying points by their whole path since the query
in place of the last step, points of the tracker's own between a few queries. Putting strays back to an affine shape
of their object gained 0.02 to 0.05 there, and lost 0.38 on a stone that turns by 200 degrees (the demo's `spin`).
Dense DIS flow, where it was better than plain Lucas-Kanade, took 50 ms a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Gt

from aot.decoding.base import BACKWARD_BYTES, FrameSource
from aot.errors import OutOfMemory, TrackingError
from aot.tracking.base import query_rows
from aot.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, QueryPoints, Tracks, UInt8Array

# A point is visible, and not lost, from this probability on.
VISIBLE_PROBABILITY = 0.5

# The cloud: distance of neighbouring helpers, and the distance at which a vote has fallen to 1/e, in working px.
HELPER_SPACING = 4.0
HELPER_REACH = 8.0
# Helpers in a cloud, the most that the budget allows for all points at once: 5x5, 3x3, a cross, the point alone.
CLOUD_SIDE = 5
CLOUD_SIZES = (25, 9, 5, 1)

# Sum of the differences in R, G and B at which a helper's vote has fallen to 1/e; 28 and 60 did no better.
COLOUR_TOLERANCE = 40.0
# Forward-backward error in working px at which a helper's vote is halved.
VOTE_ERROR = 1.0
# Votes further apart than this many working px do not pull on each other.
VOTE_DISAGREEMENT = 6.0

# A lost point is carried by this many neighbours at most, each weighted down to 1/e at this distance in working px.
NUM_CARRIERS = 16
CARRIER_REACH = 60.0
# Rounds of reweighting, and the residual in working px at which a carrier's weight is halved.
CARRIER_ROUNDS = 5
CARRIER_RESIDUAL = 2.0
# Spread in working px of a prior "no rotation, no change of scale": carriers that lie closer together than this say
# little about either.
CARRIER_PRIOR_SPREAD = 10.0


@dataclass(frozen=True)
class _Picture:
    """One frame at working size, as the passes need it."""

    grey: UInt8Array
    """(h, w), what flow is measured on."""
    colour: UInt8Array
    """(h / 2, w / 2, 3) RGB; half the size, so that a sample is a mean of four pixels."""


class LucasKanadeTracker:
    """Follows points by sparse optical flow, each with a cloud of helper pixels.

    `visibility` = 1 / (1 + (e / max_return_error_px)²) · likeness. e is the least forward-backward error in the point's
    cloud, in working px; likeness, at most 1, is how much of the cloud looks like the point, relative to the query's
    frame. `visible` means 0.5 or more, inside the frame.
    `confidence` = visibility · agreement, the share of the cloud's vote that moves with the winner.
    Both are 1 at the query.
    """

    def __init__(
        self,
        window_px: Annotated[int, Ge(3)] = 9,
        pyramid_levels: Annotated[int, Ge(0)] = 3,
        max_return_error_px: Annotated[float, Gt(0)] = 3.0,
        max_helpers: Annotated[int, Ge(0)] = 2000,
        max_side_px: Annotated[int, Ge(16)] = 960,
    ) -> None:
        """Keep the options; they are explained in conf/tracker/lucas_kanade.yaml."""
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
            lean: changes nothing; two frames are all that is ever held of a clip.
        Returns:
            Tracks; how its probabilities come about is said at the class.
        Raises:
            TrackingError: a query's frame is not among the kept ones, or OpenCV refused.
            OutOfMemory: OpenCV got no memory.
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
        """Peak memory of `track`, estimated from above; nearly all of it are frames decoded ahead."""
        frame_bytes = 3 * width * height
        # Pieces of frames when read backwards: in use, put in order, and decoded ahead.
        decoded = 3 * min(max(BACKWARD_BYTES, frame_bytes), num_frames * frame_bytes)
        scale = min(1.0, self.max_side_px / max(width, height))
        # A frame at working size, OpenCV's pyramids of two grey pictures and the 16-bit derivatives of one.
        pictures = 12 * math.ceil(frame_bytes * scale**2)
        cloud = next((size for size in CLOUD_SIZES if size * num_points <= self.max_helpers), 1)
        # What each helper says of every other of its cloud; then every lost point against every carrier.
        votes = num_points * cloud * (16 * cloud + 200)
        carried = 6 * num_points**2 + 2000 * num_points
        return decoded + pictures + max(votes, carried) + 17 * num_frames * num_points

    def _sweep(
        self, frames: FrameSource, order: Int64Array, rows: Int64Array, queries: QueryPoints, tracks: Tracks
    ) -> None:
        """Carry the queries along the rows in `order`, each from its own row on, and write down where they are."""
        scale = min(1.0, self.max_side_px / max(frames.width, frames.height))
        state = _State(self, _scaled(queries.txy[:, 1:], scale), queries.object_id)
        position = iter(order)
        for block in frames.blocks(frames.index[order]):
            for rgb in block.rgb:
                row = next(position)
                picture = _picture(rgb, scale)
                state.advance(picture)
                state.admit(np.flatnonzero(rows == row), picture)
                state.write(tracks, row, scale)
        own = np.arange(len(queries))
        tracks.xy[rows, own] = queries.txy[:, 1:]


class _State:
    """Where all points are while one sweep passes over the frames; points not yet admitted are not touched."""

    def __init__(self, options: LucasKanadeTracker, query: Float32Array, object_id: Int32Array) -> None:
        num = len(query)
        self.options = options
        self.query = query
        self.object_id = object_id
        self.active = np.zeros(num, dtype=np.bool_)
        self.xy = query.copy()
        self.visibility = np.ones(num, dtype=np.float32)
        self.confidence = np.ones(num, dtype=np.float32)
        self.own_colour = np.zeros((num, 3), dtype=np.float32)
        self.own_votes = np.ones(num, dtype=np.float32)
        self.cloud, self.nearness = _cloud(num, options.max_helpers)
        self.picture: _Picture | None = None

    def admit(self, points: Int64Array, picture: _Picture) -> None:
        """Start the points whose query lies on this frame."""
        self.picture = picture
        if not len(points):
            return
        self.active[points] = True
        self.own_colour[points] = _sample(picture.colour, self.query[points, None], 0.5)[:, 0]
        self.own_votes[points] = self._votes(points, self.query[points], picture).sum(axis=1)

    def advance(self, picture: _Picture) -> None:
        """Move the points that have started to the next frame."""
        points = np.flatnonzero(self.active)
        if self.picture is None or not len(points):
            return
        before, old = self.xy[points], self.picture
        helpers = before[:, None] + self.cloud
        moved, error = self._follow(old.grey, picture.grey, helpers)
        votes = self._votes(points, before, old) / (1 + (error / VOTE_ERROR) ** 2)
        flow, agreement = _elect(moved - helpers, votes)
        after = before + flow

        returns = 1 / (1 + (error.min(axis=1) / self.options.max_return_error_px) ** 2)
        returns *= _inside(after, picture.grey)
        likeness = np.minimum(self._votes(points, after, picture).sum(axis=1) / self.own_votes[points], 1)
        self.visibility[points] = returns * likeness
        self.confidence[points] = self.visibility[points] * agreement
        self.xy[points] = self._carry(points, before, after, returns)
        # Carried on and on beyond the border, a position must not grow without bound.
        size = np.array(picture.grey.shape[::-1], dtype=np.float32)
        self.xy[points] = np.clip(self.xy[points], -size, 2 * size)

    def write(self, tracks: Tracks, row: int, scale: float) -> None:
        """Note down the points that have started."""
        at = self.active
        tracks.xy[row, at] = _unscaled(self.xy[at], scale)
        tracks.visibility[row, at] = self.visibility[at]
        tracks.confidence[row, at] = self.confidence[at]
        tracks.visible[row, at] = self.visibility[at] >= VISIBLE_PROBABILITY

    def _votes(self, points: Int64Array, xy: Float32Array, picture: _Picture) -> Float32Array:
        """What each helper's vote counts by colour and distance: (L, M)."""
        colour = _sample(picture.colour, xy[:, None] + self.cloud, 0.5)
        difference = np.abs(colour - self.own_colour[points, None]).sum(axis=2)
        return np.asarray(np.exp(-difference / COLOUR_TOLERANCE) * self.nearness, dtype=np.float32)

    def _follow(self, old: UInt8Array, new: UInt8Array, helpers: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Flow of every helper to the new frame, and how far from its start it comes back: (L, M, 2), (L, M)."""
        start = np.ascontiguousarray(helpers.reshape(-1, 1, 2))
        there = _lucas_kanade(old, new, start, self.options)
        back = _lucas_kanade(new, old, there, self.options)
        error = np.linalg.norm(back - start, axis=2)
        return there.reshape(helpers.shape), error.reshape(helpers.shape[:2])

    def _carry(
        self, points: Int64Array, before: Float32Array, after: Float32Array, returns: Float32Array
    ) -> Float32Array:
        """Put the lost points where their object's other points take them.

        Where all points of an object are lost, those that come back lead on: its light or its pose has changed, and
        flow is all there is to go by. Where none comes back, all stay.
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
                carried[follows] = _carry_along(before[follows], before[leads], after[leads])
        return carried


def _lucas_kanade(old: UInt8Array, new: UInt8Array, start: Float32Array, options: LucasKanadeTracker) -> Float32Array:
    """Where positions (P, 1, 2) of the old picture lie in the new one."""
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
            raise OutOfMemory("OpenCV got no memory for optical flow; use a smaller max_side_px") from exc
        raise TrackingError(f"OpenCV could not compute optical flow: {exc}") from exc


def _scaled(xy: Float32Array, scale: float) -> Float32Array:
    """Source px to working px; pixel centres are integers in both."""
    return ((xy + 0.5) * scale - 0.5).astype(np.float32)


def _unscaled(xy: Float32Array, scale: float) -> Float32Array:
    """Working px to source px."""
    return ((xy + 0.5) / scale - 0.5).astype(np.float32)


def _picture(rgb: UInt8Array, scale: float) -> _Picture:
    """A frame at working size."""
    if scale < 1:
        rgb = _resized(rgb, scale)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return _Picture(grey=grey, colour=_resized(rgb, 0.5))


def _resized(rgb: UInt8Array, scale: float) -> UInt8Array:
    """Shrink by averaging; at least one pixel is left."""
    height, width = rgb.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _cloud(num_points: int, max_helpers: int) -> tuple[Float32Array, Float32Array]:
    """Offsets (M, 2) of the helpers, and their votes' factor for distance (M,); the point itself is one of them."""
    size = next((size for size in CLOUD_SIZES if size * num_points <= max_helpers), 1)
    steps = (np.arange(CLOUD_SIDE) - CLOUD_SIDE // 2) * HELPER_SPACING
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2).astype(np.float32)
    reach = np.linalg.norm(offsets, axis=1)
    nearest = np.argsort(reach, kind="stable")[:size]
    return offsets[nearest], np.exp(-reach[nearest] / HELPER_REACH).astype(np.float32)


def _sample(image: UInt8Array, xy: Float32Array, scale: float) -> Float32Array:
    """Values at positions (L, M, 2) of the image before it was scaled; beyond the border its edge goes on."""
    at = _scaled(xy, scale)
    values = cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, dtype=np.float32).reshape(*xy.shape[:2], 3)


def _elect(flows: Float32Array, votes: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The flow of each cloud that the most votes lie near, and the share of the votes that do: (L, 2), (L,).

    Args:
        flows: (L, M, 2), one a helper.
        votes: (L, M), what each counts.
    """
    votes = votes + np.finfo(np.float32).tiny
    distance = np.linalg.norm(flows[:, :, None] - flows[:, None], axis=3)
    distance = np.minimum(distance, VOTE_DISAGREEMENT) / VOTE_DISAGREEMENT
    cost = np.einsum("lij,lj->li", distance, votes) / votes.sum(axis=1, keepdims=True)
    best = cost.argmin(axis=1)
    each = np.arange(len(flows))
    return flows[each, best], 1 - cost[each, best]


def _inside(xy: Float32Array, grey: UInt8Array) -> BoolArray:
    """Which positions lie on a pixel of the picture."""
    height, width = grey.shape
    within = (xy >= -0.5) & (xy < np.array([width, height]) - 0.5)
    return np.asarray(within.all(axis=1))


def _carry_along(xy: Float32Array, before: Float32Array, after: Float32Array) -> Float32Array:
    """Move positions (L, 2) as their nearest carriers (C, 2) moved: a local similarity, fitted robustly.

    Each position has a fit of its own (moving least squares), reweighted against carriers that move otherwise.
    """
    distance = np.linalg.norm(xy[:, None] - before[None], axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, :NUM_CARRIERS]
    nearness = np.exp(-np.take_along_axis(distance, near, axis=1) / CARRIER_REACH) + 1e-3
    source, target = before[near].astype(np.float64), after[near].astype(np.float64)
    weight = nearness
    for _ in range(CARRIER_ROUNDS):
        total = weight.sum(axis=1, keepdims=True)
        source_mean = np.einsum("lc,lcd->ld", weight, source) / total
        target_mean = np.einsum("lc,lcd->ld", weight, target) / total
        turn = _turn(source - source_mean[:, None], target - target_mean[:, None], weight)
        fitted = _turned(source - source_mean[:, None], turn[:, None]) + target_mean[:, None]
        residual = np.linalg.norm(fitted - target, axis=2)
        weight = nearness / (1 + (residual / CARRIER_RESIDUAL) ** 2)
    return np.asarray(_turned(xy - source_mean, turn) + target_mean, dtype=np.float32)


def _turn(source: Float64Array, target: Float64Array, weight: Float64Array) -> Float64Array:
    """Rotation and scale as one complex factor (L, 2) that maps centred sources to centred targets best."""
    prior = CARRIER_PRIOR_SPREAD**2 * weight.sum(axis=1)
    size = np.einsum("lc,lcd->l", weight, source**2) + prior
    real = np.einsum("lc,lcd->l", weight, source * target) + prior
    imaginary = np.einsum("lc,lc->l", weight, source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0])
    return np.stack([real / size, imaginary / size], axis=-1)


def _turned(xy: Float64Array, turn: Float64Array) -> Float64Array:
    """Multiply positions by a complex factor."""
    x, y, real, imaginary = xy[..., 0], xy[..., 1], turn[..., 0], turn[..., 1]
    return np.stack([real * x - imaginary * y, imaginary * x + real * y], axis=-1)
