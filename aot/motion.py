"""The motion of points and of whole objects between rows of a result, from valid positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aot.system.array_fields import ArrayFields

_Bools = NDArray[np.bool_]
_Float32 = NDArray[np.float32]
_Float64 = NDArray[np.float64]

Per = Literal["frame", "second"]

# An affine map has six parameters, two equations per point.
MIN_POINTS = 3
# Rounds of reweighting of the affine fit, and the residual in px at which a point's weight is halved.
_ROUNDS = 4
_RESIDUAL_PX = 1.0


@dataclass(frozen=True, eq=False, repr=False)
class ObjectMotion(ArrayFields):
    """The place and the motion of K objects on T rows; NaN where there is nothing to measure."""

    index: NDArray[np.int64]
    """(T,) source frames."""
    object_id: NDArray[np.int32]
    """(K,)."""
    area: _Float32
    """(T, K) pixels of the mask."""
    centroid: _Float32
    """(T, K, 2) mean position of the pixels of the mask, px."""
    box: _Float32
    """(T, K, 4) x0, y0, x1, y1 of the mask: its first and last column and row."""
    coverage: _Float32
    """(T, K) fraction of the mask that valid points cover."""
    num_points: NDArray[np.int64]
    """(T, K) points that are valid on a row and on the next one."""
    mean_flow: _Float32
    """(T, K, 2) their mean displacement to the next row, px."""
    affine: _Float32
    """(T, K, 2, 3) the affine map (x, y, 1) → position on the next row that fits them best, robustly."""
    residual: _Float32
    """(T, K) root of the mean square of their distances to that map, px."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("T",), sizes)
        self._check("object_id", np.int32, ("K",), sizes)
        self._check("area", np.float32, ("T", "K"), sizes)
        self._check("centroid", np.float32, ("T", "K", 2), sizes)
        self._check("box", np.float32, ("T", "K", 4), sizes)
        self._check("coverage", np.float32, ("T", "K"), sizes)
        self._check("num_points", np.int64, ("T", "K"), sizes)
        self._check("mean_flow", np.float32, ("T", "K", 2), sizes)
        self._check("affine", np.float32, ("T", "K", 2, 3), sizes)
        self._check("residual", np.float32, ("T", "K"), sizes)


def flow_between(
    xy: _Float32, valid: _Bools | None, index: NDArray[np.int64], time: _Float64, *, per: Per | None, step: int
) -> _Float32:
    """Displacement of every point from row t to row t + step: (T − step, N, 2).

    Args:
        xy: (T, N, 2) px.
        valid: (T, N); NaN where either end is not valid. None: all are.
        index, time: (T,) source frames, and presentation times in s.
        per: px per source frame or per second; None: px.
        step: ≥ 1.
    """
    if step < 1:
        raise ValueError(f"step={step}: expected an integer of at least 1")
    if per not in (None, "frame", "second"):
        raise ValueError(f"per={per!r}: expected None, 'frame' or 'second'")
    flow = xy[step:] - xy[:-step]
    if per is not None:
        units = index if per == "frame" else time
        flow = flow / (units[step:] - units[:-step]).astype(np.float64)[:, None, None]
    if valid is not None:
        flow = np.where((valid[step:] & valid[:-step])[..., None], flow, np.nan)
    return np.asarray(flow, dtype=np.float32)


def fit_affine(before: _Float32, after: _Float32) -> tuple[_Float64, float] | None:
    """The affine map that best takes positions to others, robustly, and the root mean square of the distances to it.

    Args:
        before, after: (P, 2) px.
    Returns:
        (2, 3), and px; None for fewer than three points, and for points on a line.
    """
    if len(before) < MIN_POINTS:
        return None
    centre = before.mean(axis=0, dtype=np.float64)
    known = np.column_stack([before - centre, np.ones(len(before))])
    # The spread of the points across their main direction, px: below it, they lie on a line.
    if np.linalg.matrix_rank(known, tol=1e-3 * len(before) ** 0.5) < MIN_POINTS:
        return None
    weight = np.ones(len(before))
    distance = weight
    solution = np.zeros((3, 2))
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)[:, None]
        solution = np.linalg.lstsq(known * root, after * root, rcond=None)[0]
        distance = np.linalg.norm(known @ solution - after, axis=1)
        weight = 1 / (1 + (distance / _RESIDUAL_PX) ** 2)
    linear, shift = solution[:2].T, solution[2]
    found = np.column_stack([linear, shift - linear @ centre])
    return found, float(np.sqrt(np.mean(distance**2)))


def measure_points(
    xy: _Float32, valid: _Bools, track_object_id: NDArray[np.int32], object_ids: Sequence[int]
) -> tuple[NDArray[np.int64], _Float32, _Float32, _Float32]:
    """`num_points`, `mean_flow`, `affine` and `residual` of an `ObjectMotion`."""
    shape = (len(xy), len(object_ids))
    num_points = np.zeros(shape, dtype=np.int64)
    mean_flow = np.full((*shape, 2), np.nan, dtype=np.float32)
    affine = np.full((*shape, 2, 3), np.nan, dtype=np.float32)
    residual = np.full(shape, np.nan, dtype=np.float32)
    for row in range(len(xy) - 1):
        for k, object_id in enumerate(object_ids):
            both = valid[row] & valid[row + 1] & (track_object_id == object_id)
            before, after = xy[row, both], xy[row + 1, both]
            num_points[row, k] = len(before)
            if len(before):
                mean_flow[row, k] = (after - before).mean(axis=0)
            fitted = fit_affine(before, after)
            if fitted is not None:
                affine[row, k], residual[row, k] = fitted
    return num_points, mean_flow, affine, residual


def measure_mask(mask: _Bools) -> tuple[float, _Float64, NDArray[np.int64]] | None:
    """Area, centroid (x, y) and box (x0, y0, x1, y1) of an (H, W) mask; None for an empty one."""
    y, x = np.nonzero(mask)
    if not len(x):
        return None
    return float(len(x)), np.array([x.mean(), y.mean()]), np.array([x.min(), y.min(), x.max(), y.max()])
