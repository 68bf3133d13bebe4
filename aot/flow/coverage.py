"""Coverage: how much of an object's mask is near a valid point.

A pixel of the mask is covered if a valid point that lies in the mask is within a radius of it: 1.5 times the spacing
that the sampler's points have on an object of that size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from aot.flow.comparison import MasksOf
from aot.images.compact import CompactMask
from aot.query_points.base import KnowsSpacing, QuerySampler
from aot.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array

RADIUS_PER_SPACING = 1.5


def spacing_px(sampler: QuerySampler, area: int, frame_size: tuple[int, int]) -> float:
    """Distance in px between neighbouring points of a sampler on an object.

    Args:
        sampler: that places the points.
        area: of the object's mask, px.
        frame_size: height and width, px.
    """
    if isinstance(sampler, KnowsSpacing):
        return sampler.spacing(area, frame_size)
    return math.sqrt(area / min(area, sampler.max_points))


def distance_to_points(mask: CompactMask, xy: Float32Array) -> Float32Array:
    """(h, w) distance in px of every pixel of the mask's crop to the nearest of (P, 2) points in the mask.

    Infinite without points.
    """
    pixels = mask.pixels()
    x, y = np.rint(xy).astype(np.int64).T
    inside = mask.contains(x, y)
    if not inside.any():
        return np.full(pixels.shape, np.inf, dtype=np.float32)
    empty = np.ones(pixels.shape, dtype=np.uint8)
    empty[y[inside] - mask.row, x[inside] - mask.column] = 0
    return np.asarray(cv2.distanceTransform(empty, cv2.DIST_L2, cv2.DIST_MASK_5), dtype=np.float32)


def measure_coverage(
    xy: Float32Array,
    valid: BoolArray,
    track_object_id: Int32Array,
    object_ids: Sequence[int],
    index: Int64Array,
    masks_of: MasksOf,
    sampler: QuerySampler,
    frame_size: tuple[int, int],
) -> Float64Array:
    """(T, K) fraction of each object's mask that is covered by its valid points; NaN without a mask.

    Args:
        xy, valid: (T, N, 2) source px and (T, N).
        track_object_id: (N,).
        object_ids: K ids, in the order of the masks.
        index: (T,) source frames.
        masks_of: the masks of a source frame.
        sampler: whose spacing decides the radius.
        frame_size: height and width, px.
    """
    covered = np.full((len(index), len(object_ids)), np.nan)
    for row, frame in enumerate(index):
        for k, mask in enumerate(masks_of(int(frame)) or ()):
            if mask.area:
                own = valid[row] & (track_object_id == object_ids[k])
                radius = RADIUS_PER_SPACING * spacing_px(sampler, mask.area, frame_size)
                is_covered = distance_to_points(mask, xy[row, own]) <= radius
                covered[row, k] = is_covered[mask.pixels()].mean()
    return covered
