"""Scores of the flow of valid points, and of how long tracks survive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aot.datasets.ground_truth import GroundTruth, TrackTruth
from aot.evaluate.tracks import RASTER
from aot.types import BoolArray, ClipResult, Float32Array, Int64Array

FLOW_THRESHOLDS = (1, 3, 5)
"""End-point errors in px; a displacement within (strictly below) a threshold counts as correct."""
SURVIVAL_PX = 50
"""Distance on TAP-Vid's raster at which a track is lost, as in PointOdyssey (arXiv:2307.15055)."""


@dataclass(frozen=True)
class FlowScore:
    """Scores of the displacements of valid points between consecutive kept frames, inside the true masks."""

    end_point_error: float
    """EPE: mean distance in px between the end of a displacement and the end of the true one."""
    within: dict[int, float]
    """Per threshold: fraction of the displacements with an error below it."""
    num_displacements: int


def score_flow(result: ClipResult, truth: GroundTruth) -> FlowScore | None:
    """Score the flow of valid points; None if the true flow is not known, or no valid point is on its object."""
    flow = result.flow(valid=True)
    errors = []
    for row, (frame, to_frame) in enumerate(zip(result.index[:-1].tolist(), result.index[1:].tolist())):
        for object_id in result.object_id.tolist():
            points = (result.track_object_id == object_id) & np.isfinite(flow[row, :, 0])
            true = truth.flow(object_id, frame, to_frame, result.tracks.xy[row, points])
            if true is None:
                return None
            distance = np.linalg.norm(flow[row, points] - true, axis=1)
            errors.append(distance[np.isfinite(distance)])
    found = np.concatenate(errors) if errors else np.zeros(0)
    if not len(found):
        return None
    within = {threshold: float((found < threshold).mean()) for threshold in FLOW_THRESHOLDS}
    return FlowScore(float(found.mean()), within, len(found))


def survival(
    xy: Float32Array, truth: TrackTruth, query_frame: Int64Array, frames: Int64Array, size: tuple[int, int]
) -> float | None:
    """Mean fraction of the frames on which a point is truly visible before its track is first lost.

    In both directions from the query. As in PointOdyssey, a track is lost where it is farther than `SURVIVAL_PX` from
    the true position on the raster of TAP-Vid.

    Args:
        xy: (F, N, 2) px, predicted.
        truth: of the same frames and points.
        query_frame: (N,) source frame of every query.
        frames: (F,) source frames, ascending.
        size: width and height of the video, px.
    Returns:
        In 0..1; None if no point is visible besides its query.
    """
    counted = truth.annotated & truth.visible & (frames[:, None] != query_frame)
    offset = np.where(truth.visible[..., None], xy - truth.xy, 0) * (RASTER / np.array(size))
    lost = counted & (np.linalg.norm(offset, axis=2) > SURVIVAL_PX)
    after = frames[:, None] > query_frame
    survives = ~np.where(after, _since(lost & after), _since((lost & ~after)[::-1])[::-1])
    num_visible = counted.sum(axis=0)
    known = num_visible > 0
    if not known.any():
        return None
    return float(((survives & counted).sum(axis=0)[known] / num_visible[known]).mean())


def _since(lost: BoolArray) -> BoolArray:
    """(F, N) whether a track was lost on this row or on one before it."""
    return np.asarray(np.maximum.accumulate(lost, axis=0))
