"""Tracks compared with the masks of their objects, in one pass over the masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from aot.images.compact import CompactMask
from aot.self_checks import MaskStability
from aot.types import BoolArray, Float32Array, Int32Array, Int64Array

MasksOf = Callable[[int], Sequence[CompactMask] | None]
"""Source frame → one mask per object; None: the clip has none on that frame."""


@dataclass(frozen=True)
class MaskComparison:
    """Where the positions of tracks lie relative to the masks of their objects."""

    in_mask: BoolArray
    """(T, N) whether each position, rounded to a pixel, is in its own object's mask; False without a mask."""
    is_near: BoolArray
    """(T, N) whether it is in the mask or within the tolerance of it; False without a mask."""
    area: Int64Array
    """(T, K) pixels of each object's mask; 0 without a mask."""
    has_mask: BoolArray
    """(T,) whether the clip has masks on the frame; they may be empty."""
    stability: dict[int, float]
    """Object id → stability of its masks (`aot.self_checks`)."""


def compare_with_masks(
    xy: Float32Array,
    track_object_id: Int32Array,
    object_ids: Sequence[int],
    index: Int64Array,
    masks_of: MasksOf,
    tolerance_px: float,
) -> MaskComparison:
    """Compare every position with its object's mask.

    Args:
        xy: (T, N, 2) source px.
        track_object_id: (N,).
        object_ids: K ids, in the order of the masks.
        index: (T,) source frames.
        masks_of: the masks of a source frame.
        tolerance_px: how far outside its mask a position is still near, in source px.
    """
    points_of = [np.flatnonzero(track_object_id == object_id) for object_id in object_ids]
    in_mask = np.zeros(xy.shape[:2], dtype=np.bool_)
    is_near = np.zeros_like(in_mask)
    area = np.zeros((len(index), len(object_ids)), dtype=np.int64)
    has_mask = np.zeros(len(index), dtype=np.bool_)
    stability = MaskStability()
    for row, frame in enumerate(index):
        x, y = np.rint(xy[row]).astype(np.int64).T
        masks = masks_of(int(frame))
        has_mask[row] = masks is not None
        for k, mask in enumerate(masks or ()):
            own = points_of[k]
            stability.add(object_ids[k], mask)
            area[row, k] = mask.area
            in_mask[row, own] = mask.contains(x[own], y[own])
            is_near[row, own] = in_mask[row, own]
            outside = own[~in_mask[row, own]]
            is_near[row, outside] = _within(mask, x[outside], y[outside], tolerance_px)
    return MaskComparison(in_mask, is_near, area, has_mask, stability.result())


def _within(mask: CompactMask, x: Int64Array, y: Int64Array, tolerance_px: float) -> BoolArray:
    """(N,) whether pixels are within a distance of a mask; none is of an empty mask."""
    if not mask.area or not len(x):
        return np.zeros(len(x), dtype=np.bool_)
    border = math.ceil(tolerance_px)
    outside = np.pad(~mask.pixels(), border, constant_values=True)
    # The exact distance: the approximate one of a 3x3 neighbourhood is off by up to 5 %.
    distance = cv2.distanceTransform(outside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    column, row = x - mask.column + border, y - mask.row + border
    near = (column >= 0) & (column < outside.shape[1]) & (row >= 0) & (row < outside.shape[0])
    near[near] = distance[row[near], column[near]] <= tolerance_px
    return np.asarray(near)
