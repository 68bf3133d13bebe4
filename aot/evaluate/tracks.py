"""Scores of tracks: AJ, δ and OA as TAP-Vid counts them, PCK as BADJA does.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video" (arXiv:2211.03726), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aot.datasets.ground_truth import QueryMode, TrackTruth
from aot.types import BoolArray, Float32Array, Float64Array, Int64Array

RASTER = 256
"""TAP-Vid measures distances as if every video were this many px wide and high."""
THRESHOLDS = (1, 2, 4, 8, 16)
"""Distances in px of that raster; a position counts as found strictly below."""
PCK_THRESHOLD = 0.2
"""Of the square root of the object's mask area, as BADJA (arXiv:1811.05804) counts a joint as found."""


@dataclass(frozen=True)
class PointScore:
    """How well tracks fit the truth; None where the truth has nothing to count."""

    average_jaccard: float | None
    """AJ: mean of `jaccard`."""
    average_within: float | None
    """δ_avg: mean of `within`."""
    occlusion_accuracy: float | None
    """OA: share of positions whose visibility is right."""
    jaccard: dict[int, float]
    """Per threshold: found and said to be visible, over all that are visible or wrongly said to be."""
    within: dict[int, float]
    """δ per threshold: share of the truly visible positions that are found."""
    pck: float | None
    """Share of the truly visible positions within 0.2·√area of their object; None where no mask area is known."""
    num_positions: int
    """Truly visible (frame, point) pairs, which δ is over."""
    num_pck: int
    """(frame, point) pairs that PCK is over."""


def counted_positions(queries: Float32Array, frames: Int64Array, mode: QueryMode) -> BoolArray:
    """Which positions count.

    Args:
        queries: (N, 3) float32 (t, x, y).
        frames: (F,) source frames.
        mode: "first": the frames after the query; "strided": all but the query's own.
    Returns:
        (F, N) bool.
    """
    query_frame = queries[None, :, 0].astype(np.int64)
    return np.asarray(frames[:, None] > query_frame if mode == "first" else frames[:, None] != query_frame)


def score_points(
    xy: Float32Array,
    visible: BoolArray,
    truth: TrackTruth,
    counted: BoolArray,
    *,
    width: int,
    height: int,
    areas: Float64Array,
) -> PointScore:
    """Score tracks on some frames.

    Args:
        xy, visible: (F, N, 2) px, (F, N) bool, what the tracker says.
        truth: of the same frames and points.
        counted: (F, N) bool; what is not annotated is left out besides.
        width, height: of the video, px.
        areas: (F, N) px of the true mask of every point's object; NaN where unknown.
    """
    counted = counted & truth.annotated
    # NaN where nothing is known; what the truth calls hidden is never compared.
    offset = np.where(truth.visible[..., None], xy - truth.xy, np.inf)
    raster_px = np.hypot(offset[..., 0] * (RASTER / width), offset[..., 1] * (RASTER / height))
    true = counted & truth.visible
    num_true = int(true.sum())
    jaccard, within = {}, {}
    for threshold in THRESHOLDS if num_true else ():
        found = truth.visible & (raster_px < threshold)
        within[threshold] = float(found[true].mean())
        wrongly_visible = int((counted & visible & ~found).sum())
        jaccard[threshold] = int((true & found & visible).sum()) / (num_true + wrongly_visible)
    limits = PCK_THRESHOLD * np.sqrt(areas)
    in_pck = true & np.isfinite(limits)
    return PointScore(
        average_jaccard=float(np.mean(list(jaccard.values()))) if jaccard else None,
        average_within=float(np.mean(list(within.values()))) if within else None,
        occlusion_accuracy=float((visible == truth.visible)[counted].mean()) if counted.any() else None,
        jaccard=jaccard,
        within=within,
        pck=float((np.hypot(*np.moveaxis(offset, -1, 0)) <= limits)[in_pck].mean()) if in_pck.any() else None,
        num_positions=num_true,
        num_pck=int(in_pck.sum()),
    )
