"""Scores of tracks: AJ, δ and OA as in TAP-Vid, PCK as in BADJA.

Source: Doersch et al., "TAP-Vid: A Benchmark for Tracking Any Point in a Video" (arXiv:2211.03726), section 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aot.datasets.ground_truth import QueryMode, TrackTruth
from aot.types import BoolArray, Float32Array, Float64Array, Int64Array

RASTER = 256
"""Width and height in px of the raster on which TAP-Vid measures distances."""
THRESHOLDS = (1, 2, 4, 8, 16)
"""Distances in px of that raster; a position within (strictly below) a threshold counts as correct."""
PCK_THRESHOLD = 0.2
"""Maximum distance as a fraction of the square root of the object's mask area, as in BADJA (arXiv:1811.05804)."""


@dataclass(frozen=True)
class PointScore:
    """Scores of tracks; None if there is no position to score."""

    average_jaccard: float | None
    """AJ: mean of `jaccard`."""
    average_within: float | None
    """δ_avg: mean of `within`."""
    occlusion_accuracy: float | None
    """OA: fraction of positions with the correct visibility."""
    jaccard: dict[int, float]
    """Per threshold: true positives / (visible positions + false positives)."""
    within: dict[int, float]
    """δ per threshold: fraction of the visible positions that are within the threshold."""
    pck: float | None
    """Fraction of the visible positions within 0.2·√area of their object; None if no mask area is known."""
    num_positions: int
    """Number of visible (frame, point) pairs: the denominator of δ."""
    num_pck: int
    """Number of (frame, point) pairs: the denominator of PCK."""


def counted_positions(queries: Float32Array, frames: Int64Array, mode: QueryMode) -> BoolArray:
    """Which positions are scored.

    Args:
        queries: (N, 3) float32 (t, x, y).
        frames: (F,) source frames.
        mode: "first": frames after the query frame; "strided": all frames except the query frame.
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
        xy, visible: (F, N, 2) px and (F, N) bool, predicted.
        truth: ground truth of the same frames and points.
        counted: (F, N) bool, positions to score; those without annotation are excluded in addition.
        width, height: of the video, px.
        areas: (F, N) ground-truth area in px of each point's object; NaN if unknown.
    """
    counted = counted & truth.annotated
    # Ground-truth positions of hidden points may be NaN; they are not compared.
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
