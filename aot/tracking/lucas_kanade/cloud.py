"""The cloud of helper pixels around every point: helper positions, weights of their votes, and the winning flow."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from aot.types import BoolArray, Float32Array, UInt8Array

# Distance of neighbouring helpers, and the distance at which a vote has fallen to 1/e, in working px.
HELPER_SPACING = 4.0
HELPER_REACH = 8.0
# Helpers per cloud, the most that the budget allows for all points together: 5x5, 3x3, a cross, the point itself.
CLOUD_SIDE = 5
CLOUD_SIZES = (25, 9, 5, 1)

# Sum of the differences in R, G and B at which a helper's vote has fallen to 1/e; 28 and 60 were not better.
COLOUR_TOLERANCE = 40.0
# Forward-backward error in working px at which a helper's vote is halved.
VOTE_ERROR = 1.0
# Flows that differ by more than this many working px count as fully different.
VOTE_DISAGREEMENT = 6.0


@dataclass(frozen=True)
class WorkingFrame:
    """One frame at working size."""

    grey: UInt8Array
    """(h, w), on which flow is measured."""
    colour: UInt8Array
    """(h / 2, w / 2, 3) RGB; half the size, so that a sample is a mean of four pixels."""


def working_frame(rgb: UInt8Array, scale: float) -> WorkingFrame:
    """A source frame, (H, W, 3) RGB, scaled by `scale` ≤ 1."""
    if scale < 1:
        rgb = _resized(rgb, scale)
    grey = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    return WorkingFrame(grey=grey, colour=_resized(rgb, 0.5))


def to_working(xy: Float32Array, scale: float) -> Float32Array:
    """Source px to working px; pixel centres are integers in both."""
    return ((xy + 0.5) * scale - 0.5).astype(np.float32)


def to_source(xy: Float32Array, scale: float) -> Float32Array:
    """Working px to source px."""
    return ((xy + 0.5) / scale - 0.5).astype(np.float32)


def cloud_size(num_points: int, max_helpers: int) -> int:
    """Helpers per point within a budget of helpers per frame; at least the point itself."""
    return next((size for size in CLOUD_SIZES if size * num_points <= max_helpers), 1)


def cloud_offsets(size: int) -> tuple[Float32Array, Float32Array]:
    """Offsets (M, 2) of `size` helpers in working px, and their distance weights (M,); the point itself is one."""
    steps = (np.arange(CLOUD_SIDE) - CLOUD_SIDE // 2) * HELPER_SPACING
    offsets = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2).astype(np.float32)
    reach = np.linalg.norm(offsets, axis=1)
    nearest = np.argsort(reach, kind="stable")[:size]
    return offsets[nearest], np.exp(-reach[nearest] / HELPER_REACH).astype(np.float32)


def colours_at(frame: WorkingFrame, xy: Float32Array) -> Float32Array:
    """RGB (L, M, 3) at working positions (L, M, 2); beyond the border the edge is repeated."""
    at = to_working(xy, 0.5)
    values = cv2.remap(frame.colour, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(values, dtype=np.float32).reshape(*xy.shape[:2], 3)


def elect(flows: Float32Array, votes: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The flow of each cloud that has the most votes near it, and the fraction of votes that agree: (L, 2), (L,).

    Args:
        flows: (L, M, 2), one per helper.
        votes: (L, M), weight of each.
    """
    votes = votes + np.finfo(np.float32).tiny
    distance = np.linalg.norm(flows[:, :, None] - flows[:, None], axis=3)
    distance = np.minimum(distance, VOTE_DISAGREEMENT) / VOTE_DISAGREEMENT
    cost = np.einsum("lij,lj->li", distance, votes) / votes.sum(axis=1, keepdims=True)
    best = cost.argmin(axis=1)
    each = np.arange(len(flows))
    return flows[each, best], 1 - cost[each, best]


def is_inside(xy: Float32Array, frame: WorkingFrame) -> BoolArray:
    """Which positions (L, 2) lie on a pixel of the frame."""
    height, width = frame.grey.shape
    within = (xy >= -0.5) & (xy < np.array([width, height]) - 0.5)
    return np.asarray(within.all(axis=1))


def _resized(rgb: UInt8Array, scale: float) -> UInt8Array:
    """Shrink by averaging, to at least one pixel."""
    height, width = rgb.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
