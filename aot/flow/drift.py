"""Where tracks are valid: visible, and not drifted off their object.

A visible position outside the mask of its object (beyond a tolerance) is suspicious; several of them mean that the
point now belongs to something else. Positions that are not visible prove nothing: a point behind an occluder lies
outside the mask of what can be seen. Nor does a frame whose mask cannot be trusted, nor a track whose query is outside.

    row        0  1  2  3  4  5  6  7  8  9        query on row 2, drift_frames = 2
    visible    x  x  x  x  x  .  x  x  x  x
    near       x  x  x  x  .  .  .  .  .  x        rows 4, 6 and 7 are outside: the track ends with row 3
    valid      x  x  x  x  .  .  .  .  .  .

On a frame with an empty mask no position of the object is valid, but no track ends: the object may have left, or been
lost by the segmenter.
"""

from __future__ import annotations

import numpy as np

from aot.flow.comparison import MaskComparison
from aot.lifetimes import TO_THE_END, Lifetimes
from aot.types import BoolArray, Int32Array, Int64Array

# A mask that has lost half of its usual area within this many kept frames on either side has lost a part of the
# object, or the object itself, or the object is being occluded: then the visible points outside it are not judged.
TRUSTED_AREA_FRACTION = 0.5
TRUSTED_WINDOW = 12


def find_lifetimes(
    visible: BoolArray,
    compared: MaskComparison,
    query_row: Int64Array,
    track_column: Int64Array,
    index: Int64Array,
    max_outside: int,
) -> Lifetimes:
    """End every track, in both directions from its query, where it drifts off its object.

    Args:
        visible: (T, N).
        compared: of the same tracks.
        query_row: (N,) row of each track's query.
        track_column: (N,) position of each track's object in `compared.area`.
        index: (T,) source frames.
        max_outside: a track ends at the first of more than this many visible positions outside its object, between
            which none is near it.
    """
    is_trusted = trusted_masks(compared.area)[:, track_column]
    # A query outside the mask, as the manifest may give one, contradicts the mask from the start.
    starts_near = compared.is_near[query_row, np.arange(visible.shape[1])]
    is_absent = compared.has_mask[:, None] & (compared.area[:, track_column] == 0) & starts_near
    suspicious = visible & ~compared.is_near & is_trusted & starts_near
    clears = visible & compared.is_near
    num_rows = len(visible)
    last = _last_row(suspicious, clears, query_row, max_outside)
    first = num_rows - 1 - _last_row(suspicious[::-1], clears[::-1], num_rows - 1 - query_row, max_outside)
    rows = np.arange(num_rows)[:, None]
    return Lifetimes(
        born=index[first],
        ended=np.where(last == num_rows - 1, TO_THE_END, index[last]),
        valid=visible & ~is_absent & (rows >= first) & (rows <= last),
    )


def trusted_masks(area: Int64Array) -> BoolArray:
    """(T, K) whether a mask of this many pixels is not empty and has not lost much of its usual area."""
    usual = np.stack(
        [np.median(area[max(0, row - TRUSTED_WINDOW) : row + TRUSTED_WINDOW + 1], axis=0) for row in range(len(area))]
    )
    return np.asarray((area > 0) & (area >= TRUSTED_AREA_FRACTION * usual))


def _last_row(suspicious: BoolArray, clears: BoolArray, start: Int64Array, max_outside: int) -> Int64Array:
    """(N,) row before the first of too many suspicious ones after `start`; the last row where there are not."""
    num_rows, num_points = suspicious.shape
    last = np.full(num_points, num_rows - 1, dtype=np.int64)
    count: Int32Array = np.zeros(num_points, dtype=np.int32)
    begun = last.copy()
    for row in range(num_rows):
        runs = (row > start) & (last == num_rows - 1)
        count[runs & clears[row]] = 0
        outside = runs & suspicious[row]
        begun[outside & (count == 0)] = row
        count[outside] += 1
        ends = outside & (count > max_outside)
        last[ends] = begun[ends] - 1
    return last
