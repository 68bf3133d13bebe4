"""Points spread evenly over an object; their number depends on its area."""

from __future__ import annotations

import math
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge

from aot.query_points.spreading import depth_of, farthest_points, off_the_border, thinned
from aot.types import BoolArray, Float32Array, Int32Array, Int64Array

# A connected part of the mask smaller than this fraction of its area is treated as noise and gets no points.
USEFUL_PART_FRACTION = 0.005
# Candidate pixels per part: more give a more even choice and take longer (200 points: about 5 ms).
NUM_CANDIDATES = 1024
CANDIDATES_PER_POINT = 5


class AdaptiveSampler:
    """Spreads points over every part of the mask, at a distance from its border where it is wide enough.

    Args:
        num_points: maximum number of points per object, ≥ 1.
        min_points: minimum number of points per object, ≥ 1; num_points and the number of pixels limit it.
        spacing_px: between the two, one point per square of this side in px, ≥ 1.
        margin_px: distance in px from the object's border, ≥ 0, where the object is wide enough.
    """

    def __init__(
        self,
        num_points: Annotated[int, Ge(1)] = 200,
        min_points: Annotated[int, Ge(1)] = 20,
        spacing_px: Annotated[int, Ge(1)] = 4,
        margin_px: Annotated[int, Ge(0)] = 4,
    ) -> None:
        self.num_points = num_points
        self.min_points = min_points
        self.spacing_px = spacing_px
        self.margin_px = margin_px

    @property
    def max_points(self) -> int:
        return self.num_points

    def sample(self, mask: BoolArray) -> Float32Array:
        """Choose points inside a mask: pixel centres, deterministically.

        Args:
            mask: (H, W) bool.
        Returns:
            (N, 2) float32 (x, y) px; N = 0 for an empty mask.
        """
        if not mask.any():
            return np.zeros((0, 2), dtype=np.float32)
        part_of, parts, areas = _useful_parts(mask)
        depth = depth_of(mask)
        candidate = off_the_border(mask, depth, self.margin_px)
        chosen = [
            _spread(part_of == part, candidate, depth, count)
            for part, count in zip(parts, _points_per_part(areas, self._num_points(int(areas.sum()))))
            if count
        ]
        return np.concatenate(chosen).astype(np.float32)

    def spacing(self, area: int, frame_size: tuple[int, int]) -> float:
        """Side in px of the square that each point of an object with this area has for itself."""
        return math.sqrt(area / self._num_points(area))

    def _num_points(self, area: int) -> int:
        """Number of points for an object of this many pixels."""
        by_area = area // self.spacing_px**2
        minimum = min(self.min_points, self.num_points)
        return min(max(by_area, minimum), self.num_points, area)


def _useful_parts(mask: BoolArray) -> tuple[Int32Array, Int64Array, Int64Array]:
    """(H, W) label of every pixel's connected part; labels and areas of the parts that are not noise, largest first."""
    _, part_of, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA].astype(np.int64)
    order = np.argsort(-areas, kind="stable")
    useful = order[areas[order] >= min(USEFUL_PART_FRACTION * areas.sum(), areas.max())]
    return np.asarray(part_of, dtype=np.int32), useful + 1, areas[useful]


def _points_per_part(areas: Int64Array, count: int) -> Int64Array:
    """Number of points per part: one each, the rest in proportion to the area (D'Hondt's method).

    Args:
        areas: of the parts in px, largest first.
        count: total number of points; at most the sum of the areas, so that no part gets more points than it has
            pixels. Where it is less than the number of parts, the smallest parts get none.
    """
    points = np.zeros(len(areas), dtype=np.int64)
    points[:count] = 1
    for _ in range(count - int(points.sum())):
        points[(areas / (points + 1)).argmax()] += 1
    return points


def _spread(part: BoolArray, candidate: BoolArray, depth: Float32Array, count: int) -> Int64Array:
    """Choose `count` pixels of one part by farthest-point sampling: (count, 2) x, y."""
    y, x = np.nonzero(part & candidate)
    if len(x) < count:
        y, x = np.nonzero(part)
    xy = np.stack([x, y], axis=1)
    xy = thinned(xy, max(NUM_CANDIDATES, CANDIDATES_PER_POINT * count))
    first = int(depth[xy[:, 1], xy[:, 0]].argmax())
    return xy[farthest_points(xy, first, count)]
