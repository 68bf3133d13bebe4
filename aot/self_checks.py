"""Quality checks of a result without ground truth, so that bad clips can be found among thousands.

- `visible`: fraction of (frame, point) pairs that the tracker reports as visible.
- `in_mask`: fraction of the visible ones, on frames with masks, that lie in their own object's mask. Masks and tracks
  are computed independently; where they disagree, one of them is wrong.
- `mask_stability`: overlap of an object's masks on consecutive kept frames, aligned by their centres. A mask that
  leaks, flickers or is lost changes more than an object does.
- `return_error_px`: how far a track, tracked back from the visible position farthest from its query, misses the query.
  It takes the time of a second tracking, and is therefore measured on request only (output.return_check).
- `coverage`: mean fraction of an object's masks that its valid points cover.
- `ended`: fraction of an object's tracks that drift off it, before or after their query.
- `added`: fraction of an object's tracks that were added where it had become uncovered.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aot.images.compact import CompactMask
from aot.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, QueryPoints, Tracks

CHECKS = ("visible", "in_mask", "mask_stability", "return_error_px", "coverage", "ended", "added")
"""The names of the checks, as files and tables record them."""

_LOW_IS_GOOD = ("return_error_px", "ended", "added")


@dataclass(frozen=True)
class SelfCheck:
    """The checks of one object; NaN where there is nothing to measure."""

    visible: float
    in_mask: float
    mask_stability: float
    return_error_px: float
    """Median over the object's points."""
    coverage: float
    ended: float
    added: float

    def as_json(self) -> dict[str, float | None]:
        """Check → value, rounded; None for NaN, which JSON does not have."""
        return {name: None if math.isnan(value) else round(value, 4) for name, value in asdict(self).items()}


def check_objects(
    tracks: Tracks,
    track_object_id: Int32Array,
    in_mask: BoolArray,
    mask_rows: Int64Array,
    stability: Mapping[int, float],
    return_error_px: Float64Array | None,
    drifted: BoolArray,
    added: BoolArray,
    coverage: Mapping[int, float],
) -> dict[int, SelfCheck]:
    """Check every object that has points.

    Args:
        tracks: T frames, N points.
        track_object_id: (N,) the object of each track.
        in_mask: (T, N) whether each position is in its own object's mask.
        mask_rows: (Tm,) rows that have masks; only on these is a position compared with its mask.
        stability: object id → mask stability; NaN for an object without masks.
        return_error_px: (N,) from `return_errors`; None: not measured.
        drifted: (N,) whether each track ends because it has drifted off its object.
        added: (N,) whether each track was added where its object had become uncovered.
        coverage: object id → mean coverage of its masks; NaN for an object without masks.
    Returns:
        Object id → its checks.
    """
    found = {}
    for object_id in sorted(set(track_object_id.tolist())):
        own = track_object_id == object_id
        visible = tracks.visible[:, own]
        has_masks = not math.isnan(stability.get(object_id, math.nan))
        errors = np.full(1, np.nan) if return_error_px is None else return_error_px[own]
        found[object_id] = SelfCheck(
            visible=float(visible.mean()),
            in_mask=in_mask_share(visible, in_mask[:, own], mask_rows) if has_masks else math.nan,
            mask_stability=stability.get(object_id, math.nan),
            return_error_px=float(np.nanmedian(errors)) if not np.isnan(errors).all() else math.nan,
            coverage=coverage.get(object_id, math.nan),
            ended=float(drifted[own].mean()),
            added=float(added[own].mean()),
        )
    return found


def in_mask_share(visible: BoolArray, in_mask: BoolArray, mask_rows: Int64Array) -> float:
    """Fraction of the visible positions that lie in their object's mask, on the frames that have masks.

    Args:
        visible: (T, N).
        in_mask: (T, N).
        mask_rows: (Tm,) rows that have masks.
    Returns:
        0..1; NaN without visible points, or with masks on fewer than two frames: on a single one, the points come from
        the mask that they would be compared with.
    """
    compared = visible[mask_rows]
    if len(mask_rows) < 2 or not compared.any():
        return math.nan
    return float(in_mask[mask_rows][compared].mean())


def worst(checks: Mapping[str, Mapping[str, Any]] | Mapping[int, Mapping[str, Any]], name: str) -> float:
    """A clip's value of a check: that of its worst object; NaN if it was measured for none.

    Args:
        checks: object id → `SelfCheck.as_json()`.
        name: one of CHECKS.
    """
    values = [check[name] for check in checks.values() if check.get(name) is not None]
    return float((max if name in _LOW_IS_GOOD else min)(values, default=math.nan))


class MaskStability:
    """Computes the stability of masks frame by frame; keeps only the last mask of each object."""

    def __init__(self) -> None:
        self._last: dict[int, CompactMask] = {}
        self._overlaps: dict[int, list[float]] = {}

    def add(self, object_id: int, mask: CompactMask) -> None:
        """Add the object's mask on the next frame that has masks."""
        before = self._last.get(object_id)
        overlaps = self._overlaps.setdefault(object_id, [])
        if before is not None and (before.area or mask.area):
            overlaps.append(_overlap(before, mask))
        self._last[object_id] = mask

    def result(self) -> dict[int, float]:
        """Object id → mean overlap over all pairs of consecutive frames with a mask on either; NaN without any."""
        return {i: float(np.mean(values)) if values else math.nan for i, values in self._overlaps.items()}


def _overlap(before: CompactMask, after: CompactMask) -> float:
    """Intersection over union after the earlier mask was moved by full pixels so that the centres coincide."""
    row = before.row + round(after.centre[0] - before.centre[0]) - after.row
    column = before.column + round(after.centre[1] - before.centre[1]) - after.column
    earlier, later = before.pixels(), after.pixels()
    height, width = earlier.shape
    top, left = max(0, row), max(0, column)
    bottom, right = min(later.shape[0], row + height), min(later.shape[1], column + width)
    common = 0
    if top < bottom and left < right:
        part = earlier[top - row : bottom - row, left - column : right - column]
        common = int(np.count_nonzero(part & later[top:bottom, left:right]))
    return common / (before.area + after.area - common)


def return_errors(
    track: Callable[[QueryPoints], Tracks], index: Int64Array, queries: QueryPoints, tracks: Tracks
) -> Float64Array:
    """Track every point back from the visible position that is farthest in time from its query.

    Args:
        track: tracks query points through the same frames as before.
        index: (T,) source frames.
        queries, tracks: the N query points and their tracks.
    Returns:
        (N,) px by which each point misses its query; NaN for a point that is visible on no other frame.
    """
    num_points = len(queries)
    own_row = np.searchsorted(index, queries.txy[:, 0].astype(np.int64))
    distance = np.abs(np.arange(len(index))[:, None] - own_row[None, :])
    far_row = np.where(tracks.visible, distance, -1).argmax(axis=0)
    points = np.arange(num_points)
    errors = np.full(num_points, np.nan)
    usable = np.flatnonzero((far_row != own_row) & tracks.visible[far_row, points])
    if not len(usable):
        return errors
    start: Float32Array = tracks.xy[far_row[usable], usable]
    back = track(
        QueryPoints(
            txy=np.column_stack([index[far_row[usable]], start]).astype(np.float32),
            object_id=queries.object_id[usable],
        )
    )
    returned = back.xy[own_row[usable], np.arange(len(usable))]
    errors[usable] = np.linalg.norm(returned - queries.txy[usable, 1:], axis=1)
    return errors
