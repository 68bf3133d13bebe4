"""New points on frames where the object is no longer covered by its tracks.

coverage      ______                        _____
                    \\______        _______/           min_coverage
                           \\______/
new points on              ^  ^  ^  the worst frames, in the part of the mask that is far from every valid point
"""

from __future__ import annotations

import numpy as np

from aot.flow.coverage import distance_to_points
from aot.images.compact import CompactMask
from aot.query_points.spreading import depth_of, off_the_border, thinned
from aot.types import Float32Array, Float64Array, Int64Array

# Frames of one object that get points in one round, at most, and the fraction of the clip that lies between two of
# them, at least: their tracks run through the frames between.
MAX_FRAMES_PER_ROUND = 6
MIN_GAP_FRACTION = 1 / 12

# New points keep off the border, where tracking is poor, by the default of query_points.margin_px.
MARGIN_PX = 4
NUM_CANDIDATES = 1024


def worst_rows(coverage: Float64Array, area: Int64Array, min_coverage: float) -> Int64Array:
    """The rows that get new points, the one with the most uncovered pixels first.

    Not the smallest fraction: an object that is leaving the frame shows little, and its points do not last.

    Args:
        coverage: (T,) of one object; NaN where it has no mask.
        area: (T,) of its mask in px.
        min_coverage: rows with at least this coverage get none.
    """
    gap = max(1, round(len(coverage) * MIN_GAP_FRACTION))
    left = np.where(coverage < min_coverage, (1 - coverage) * area, 0)
    rows: list[int] = []
    while len(rows) < MAX_FRAMES_PER_ROUND and left.max() > 0:
        worst = int(left.argmax())
        rows.append(worst)
        left[max(0, worst - gap) : worst + gap + 1] = 0
    return np.asarray(rows, dtype=np.int64)


def new_points(mask: CompactMask, xy: Float32Array, spacing_px: float, max_points: int) -> Float32Array:
    """Pixels in the uncovered part of a mask, each the farthest from all points before it.

    Args:
        mask: of the object, not empty.
        xy: (P, 2) the object's valid points on the frame.
        spacing_px: no new point is nearer than this to another point.
        max_points: of the result, at most.
    Returns:
        (N, 2) float32 (x, y) px.
    """
    pixels = mask.pixels()
    distance = distance_to_points(mask, xy)
    depth = depth_of(pixels)
    y, x = np.nonzero(off_the_border(pixels, depth, MARGIN_PX) & (distance > spacing_px))
    if not len(x):
        return np.zeros((0, 2), dtype=np.float32)
    at = thinned(np.stack([x, y], axis=1), NUM_CANDIDATES)
    left = distance[at[:, 1], at[:, 0]]
    # Without any point on the object, the first one lies deepest inside it.
    latest = int((depth[at[:, 1], at[:, 0]] if np.isinf(left).all() else left).argmax())
    chosen: list[int] = []
    while len(chosen) < max_points and left[latest] > spacing_px:
        chosen.append(latest)
        left = np.minimum(left, np.linalg.norm(at - at[latest], axis=1).astype(np.float32))
        latest = int(left.argmax())
    return (at[chosen] + [mask.column, mask.row]).astype(np.float32)
