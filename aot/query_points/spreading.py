"""Choosing pixels of a mask that are far from each other and off its border, for every part that places points."""

from __future__ import annotations

import cv2
import numpy as np

from aot.types import BoolArray, Float32Array, Int64Array, UInt8Array

# Where a part is too thin for the margin, pixels at least this fraction as deep as the deepest pixel nearby are kept.
# Nearby is within this many margins: hairs of a segmented fur are shorter, a limb is longer.
THIN_DEPTH_FRACTION = 0.5
NEAR_MARGINS = 2


def depth_of(mask: BoolArray) -> Float32Array:
    """Distance in px of every pixel to the nearest pixel outside the mask; the frame's exterior counts as outside."""
    padded: UInt8Array = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3), dtype=np.float32)[1:-1, 1:-1]


def off_the_border(mask: BoolArray, depth: Float32Array, margin_px: int) -> BoolArray:
    """Pixels deeper than the margin; in thin places the pixels near the centre line instead."""
    side = 2 * NEAR_MARGINS * margin_px + 1
    deepest_near = cv2.dilate(np.ascontiguousarray(depth), np.ones((side, side), dtype=np.uint8))
    enough = np.minimum(margin_px + 1, THIN_DEPTH_FRACTION * np.asarray(deepest_near))
    return np.asarray(mask & (depth >= enough))


def thinned(xy: Int64Array, num_cells: int) -> Int64Array:
    """One pixel per cell of a lattice with about `num_cells` occupied cells; thin places keep their pixels."""
    side = int((len(xy) / num_cells) ** 0.5)
    if side <= 1:
        return xy
    x, y = xy.T // side
    cell = y * (x.max() + 1) + x
    pixel_of = np.full(cell.max() + 1, -1, dtype=np.int64)
    pixel_of[cell] = np.arange(len(xy))
    return xy[pixel_of[pixel_of >= 0]]


def farthest_points(xy: Int64Array, first: int, count: int) -> Int64Array:
    """Indices of `count` points, each the farthest from all points chosen before it."""
    x, y = np.ascontiguousarray(xy.T, dtype=np.float32)
    chosen = np.empty(count, dtype=np.int64)
    distance = np.full(len(xy), np.inf, dtype=np.float32)
    latest = first
    for i in range(count):
        chosen[i] = latest
        np.minimum(distance, (x - x[latest]) ** 2 + (y - y[latest]) ** 2, out=distance)
        latest = int(distance.argmax())
    return chosen
