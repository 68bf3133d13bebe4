"""Points spread evenly over an object, as many as its size carries."""

from __future__ import annotations

from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge

from aot.types import BoolArray, Float32Array, Int32Array, Int64Array, UInt8Array

# A part of the mask smaller than this share of the whole is taken for a speck and gets no points.
USEFUL_PART_FRACTION = 0.005
# Where a part is too thin for the margin, pixels at least this share as deep as the deepest near them are kept. Near
# means this many margins away: hairs of a segmented fur are shorter, a limb is longer.
THIN_DEPTH_FRACTION = 0.5
NEAR_MARGINS = 2
# Pixels to choose from, a part: the more, the evener the choice and the longer it takes (200 points: about 5 ms).
NUM_CANDIDATES = 1024
CANDIDATES_PER_POINT = 5


class AdaptiveSampler:
    """Spreads points over every part of the mask, off its border where there is room."""

    def __init__(
        self,
        num_points: Annotated[int, Ge(1)] = 200,
        min_points: Annotated[int, Ge(1)] = 20,
        spacing_px: Annotated[int, Ge(1)] = 4,
        margin_px: Annotated[int, Ge(0)] = 4,
    ) -> None:
        """Keep the options; they are explained in conf/query_points/adaptive.yaml."""
        self.num_points = num_points
        self.min_points = min_points
        self.spacing_px = spacing_px
        self.margin_px = margin_px

    @property
    def max_points(self) -> int:
        return self.num_points

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose points inside a mask: the centres of pixels, the same ones every time.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 for an empty mask.
        """
        if not mask.any():
            return np.zeros((0, 2), dtype=np.float32)
        part_of, parts, areas = _useful_parts(mask)
        depth = _depth(mask)
        candidate = _off_the_border(mask, depth, self.margin_px)
        chosen = [
            _spread(part_of == part, candidate, depth, count)
            for part, count in zip(parts, _shares(areas, self._how_many(int(areas.sum()))))
            if count
        ]
        return np.concatenate(chosen).astype(np.float32)

    def _how_many(self, area: int) -> int:
        """Points that an object of this many pixels carries."""
        by_size = area // self.spacing_px**2
        at_least = min(self.min_points, self.num_points)
        return min(max(by_size, at_least), self.num_points, area)


def _useful_parts(mask: BoolArray) -> tuple[Int32Array, Int64Array, Int64Array]:
    """Label of every pixel's connected part; labels and areas of the parts that are no specks, largest first."""
    _, part_of, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    order = np.argsort(-areas, kind="stable")
    useful = order[areas[order] >= min(USEFUL_PART_FRACTION * areas.sum(), areas.max())]
    return np.asarray(part_of, dtype=np.int32), useful + 1, areas[useful]


def _shares(areas: Int64Array, count: int) -> Int64Array:
    """How many points each part gets: one each, then by area (D'Hondt's method, as seats are given to parties).

    Args:
        areas: of the parts, largest first.
        count: at most the sum of the areas, so that no part gets more points than it has pixels; where it is less
            than the number of parts, the smallest get none.
    """
    shares = np.zeros(len(areas), dtype=np.int64)
    shares[:count] = 1
    for _ in range(count - int(shares.sum())):
        shares[(areas / (shares + 1)).argmax()] += 1
    return shares


def _depth(mask: BoolArray) -> Float32Array:
    """Distance of every pixel to the nearest one outside the mask, in px; beyond the frame is outside."""
    padded: UInt8Array = np.pad(mask, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 3), dtype=np.float32)[1:-1, 1:-1]


def _off_the_border(mask: BoolArray, depth: Float32Array, margin_px: int) -> BoolArray:
    """Pixels deeper than the margin; in thin places those near the middle line instead."""
    side = 2 * NEAR_MARGINS * margin_px + 1
    deepest_near = cv2.dilate(np.ascontiguousarray(depth), np.ones((side, side), dtype=np.uint8))
    enough = np.minimum(margin_px + 1, THIN_DEPTH_FRACTION * np.asarray(deepest_near))
    return np.asarray(mask & (depth >= enough))


def _spread(part: BoolArray, candidate: BoolArray, depth: Float32Array, count: int) -> Int64Array:
    """Choose `count` pixels of one part, each the farthest from those before it: (count, 2) x, y."""
    y, x = np.nonzero(part & candidate)
    if len(x) < count:
        y, x = np.nonzero(part)
    xy = np.stack([x, y], axis=1)
    xy = _thinned(xy, max(NUM_CANDIDATES, CANDIDATES_PER_POINT * count))
    first = int(depth[xy[:, 1], xy[:, 0]].argmax())
    return xy[_farthest_points(xy, first, count)]


def _thinned(xy: Int64Array, wanted: int) -> Int64Array:
    """One pixel a cell of a lattice whose cells are about as many as wanted; thin places keep theirs."""
    side = int((len(xy) / wanted) ** 0.5)
    if side <= 1:
        return xy
    x, y = xy.T // side
    cell = y * (x.max() + 1) + x
    pixel_of = np.full(cell.max() + 1, -1, dtype=np.int64)
    pixel_of[cell] = np.arange(len(xy))
    return xy[pixel_of[pixel_of >= 0]]


def _farthest_points(xy: Int64Array, first: int, count: int) -> Int64Array:
    """Indices of `count` points, each the farthest from all chosen before it."""
    x, y = np.ascontiguousarray(xy.T, dtype=np.float32)
    chosen = np.empty(count, dtype=np.int64)
    distance = np.full(len(xy), np.inf, dtype=np.float32)
    latest = first
    for i in range(count):
        chosen[i] = latest
        np.minimum(distance, (x - x[latest]) ** 2 + (y - y[latest]) ** 2, out=distance)
        latest = int(distance.argmax())
    return chosen
