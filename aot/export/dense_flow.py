"""A dense flow field inside an object's mask, interpolated from the motion of its valid points.

    flow(p) = A(p) − p + Σ w_i r_i / (Σ w_i + ε)        w_i = exp(−|p − x_i|² / 2σ²)

A is the affine map that fits the points of the object best, robustly; r_i is what the i-th point moves besides it. σ is
the spacing of the points: the distance within which nine of ten have their nearest neighbour. Far from every point the
field is that of the affine map. The sums are convolutions of images, so that the time does not depend on the number of
points.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from aot.motion import fit_affine
from aot.types import BoolArray, Float32Array, Float64Array

# A pixel is valid within this many spacings of a point, and of fewer than two pixels the spacing is not known.
VALID_SPACINGS = 2.0
MIN_SPACING_PX = 2.0
# Not the median: points of a face that turns away move together, and would decide for the whole object.
SPACING_PERCENTILE = 90
_MAX_MEASURED = 200
# The weight of "no motion besides the affine map", relative to that of a point at the pixel.
PRIOR_WEIGHT = 1e-3


@dataclass(frozen=True, eq=False)
class FlowField:
    """The flow of a frame to another one."""

    flow: Float32Array
    """(H, W, 2) px, x to the right and y down; 0 outside every object."""
    valid: BoolArray
    """(H, W) whether the pixel is in the mask of an object and near one of the points that its flow was interpolated
    from."""


def interpolate(mask: BoolArray, before: Float32Array, after: Float32Array) -> FlowField:
    """The field of one object.

    Args:
        mask: (H, W) of the object on the frame.
        before, after: (P, 2) px: positions of its points that are valid on both frames.
    Returns:
        A field without any valid pixel for fewer than three points, points on a line, and an empty mask.
    """
    flow = np.zeros((*mask.shape, 2), dtype=np.float32)
    valid = np.zeros(mask.shape, dtype=np.bool_)
    fitted = fit_affine(before, after)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if fitted is None or not len(rows):
        return FlowField(flow, valid)
    affine, _ = fitted
    spacing = max(MIN_SPACING_PX, _spacing(before))
    # The kernel ends after three standard deviations; points farther outside the mask have no influence.
    border = round(3 * spacing) + 1
    top, left = rows[0] - border, columns[0] - border
    size = (rows[-1] - rows[0] + 1 + 2 * border, columns[-1] - columns[0] + 1 + 2 * border)
    at = np.rint(before).astype(np.int64) - [left, top]
    inside = ((at >= 0) & (at < [size[1], size[0]])).all(axis=1)
    rest = after - (before @ affine[:, :2].T + affine[:, 2])
    sums = np.zeros((*size, 3), dtype=np.float32)
    np.add.at(sums, (at[inside, 1], at[inside, 0]), np.column_stack([rest[inside], np.ones(inside.sum())]))
    near = cv2.distanceTransform((sums[..., 2] == 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    # Scaled so that a point's weight at its own pixel is 1.
    sums = cv2.GaussianBlur(sums, (0, 0), spacing, borderType=cv2.BORDER_CONSTANT) * (2 * np.pi * spacing**2)
    besides = sums[..., :2] / (sums[..., 2:] + PRIOR_WEIGHT)

    y, x = np.nonzero(mask)
    pixels = np.column_stack([x, y]).astype(np.float64)
    moved: Float64Array = pixels @ affine[:, :2].T + affine[:, 2]
    flow[y, x] = moved - pixels + besides[y - top, x - left]
    valid[y, x] = near[y - top, x - left] <= VALID_SPACINGS * spacing
    return FlowField(flow, valid)


def _spacing(xy: Float32Array) -> float:
    """Spacing in px of (P, 2) points, P ≥ 2, from the distances of some of them to their nearest neighbours."""
    some = xy[:: -(-len(xy) // _MAX_MEASURED)]
    distance = np.linalg.norm(some[:, None] - xy[None], axis=2)
    return float(np.percentile(np.partition(distance, 1, axis=1)[:, 1], SPACING_PERCENTILE))
