"""Score one clip's result against ground truth, on the full-rate frames of its source."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aot.datasets.ground_truth import FOREGROUND, GroundTruth, QueryMode, TrackTruth
from aot.evaluate.flow import FlowScore, score_flow, survival
from aot.evaluate.full_rate import full_rate_frames, held_rows, tracks_at
from aot.evaluate.masks import MaskScore, Series, contour_accuracy, region_similarity
from aot.evaluate.tracks import PointScore, counted_positions, score_points
from aot.types import BoolArray, ClipResult, Float64Array, Int64Array, QueryPoints
from aot.writing.reader import MaskReader, load


@dataclass(frozen=True)
class ClipScore:
    """Scores of one clip; empty or None where the ground truth has no annotations."""

    masks: dict[int, MaskScore]
    """Per object id; id 0 is the union of all objects (foreground)."""
    points: PointScore | None
    """Over all points of the clip."""
    points_of: dict[int, PointScore] = field(default_factory=dict)
    """Per object id."""
    flow: FlowScore | None = None
    """Of the valid points; None if the true flow is not known."""
    survival: float | None = None
    """Fraction of its visible frames for which a track is not lost; None without known tracks."""
    num_held: int = 0
    """Number of scored mask frames that the run did not keep: the mask of the previous kept frame is held."""
    num_interpolated: int = 0
    """Number of scored track frames that the run did not keep: positions are interpolated."""

    @property
    def region_similarity(self) -> float | None:
        """J, the mean over the clip's objects."""
        return _mean([score.region.mean for score in self.masks.values()])

    @property
    def contour_accuracy(self) -> float | None:
        """F, the mean over the clip's objects."""
        return _mean([score.contour.mean for score in self.masks.values()])

    @property
    def pck(self) -> float | None:
        return self.points.pck if self.points else None

    def as_row(self) -> dict[str, float | None]:
        """The clip's scores under their published names."""
        region, contour, points = self.region_similarity, self.contour_accuracy, self.points
        return {
            "J&F": None if region is None or contour is None else (region + contour) / 2,
            "J": region,
            "F": contour,
            "AJ": points.average_jaccard if points else None,
            "delta_avg": points.average_within if points else None,
            "OA": points.occlusion_accuracy if points else None,
            "PCK": points.pck if points else None,
            "EPE": self.flow.end_point_error if self.flow else None,
            "survival": self.survival,
        }


def evaluate_clip(path: Path, truth: GroundTruth, query_mode: QueryMode | None = None) -> ClipScore:
    """Score one clip's file.

    Args:
        path: `clips/<clip_id>.h5`.
        truth: ground truth of the same clip.
        query_mode: on which frames tracks are scored; None: as in the benchmark of the ground truth.
    Raises:
        ResultError: the file cannot be read.
        DatasetError: the ground truth cannot be read.
    """
    result = load(path, masks=False)
    frames = full_rate_frames(result)
    # Ground-truth areas are also computed if the run has no masks: the PCK of its tracks needs them.
    has_masks = len(result.mask_row) == len(result.index)
    masks, areas, num_held = _score_masks(path, result, truth, frames, has_masks)
    known = truth.tracks(QueryPoints(txy=result.query, object_id=result.track_object_id), frames)
    if known is None:
        return ClipScore(masks, None, num_held=num_held)
    annotated = np.flatnonzero(known.annotated.any(axis=1))
    frames = frames[annotated]
    known = TrackTruth(known.xy[annotated], known.visible[annotated], known.annotated[annotated])
    return _with_points(masks, num_held, result, truth, known, frames, areas, query_mode or truth.query_mode)


def _score_masks(
    path: Path, result: ClipResult, truth: GroundTruth, frames: Int64Array, has_masks: bool
) -> tuple[dict[int, MaskScore], dict[int, dict[int, int]], int]:
    """Score the masks.

    Returns:
        Scores by object id; ground-truth areas in px by object id and frame; number of frames with held masks.
    """
    # None marks a frame outside the run's time range: not scored, but it can be the first or last annotated frame.
    pairs: dict[int, list[tuple[float, float] | None]] = {}
    areas: dict[int, dict[int, int]] = {}
    num_held = 0
    with MaskReader(path) as reader:
        for frame in truth.mask_frames.tolist():
            is_in_range = bool(frames[0] <= frame <= frames[-1])
            masks = reader.row(int(held_rows(result.index, np.array([frame]))[0])) if has_masks else None
            num_held += is_in_range and has_masks and frame not in result.index
            for object_id, true_mask in (truth.mask(frame) or {}).items():
                areas.setdefault(object_id, {})[frame] = int(np.count_nonzero(true_mask))
                pair = None
                if masks is not None and is_in_range:
                    mask = _mask_of(object_id, masks, result)
                    pair = region_similarity(mask, true_mask), contour_accuracy(mask, true_mask)
                pairs.setdefault(object_id, []).append(pair)
    scores = {}
    for object_id, found in sorted(pairs.items()):
        # As in the DAVIS toolkit: the first frame usually has the prompt, and the last is excluded too.
        inner = [pair for pair in found[1:-1] if pair is not None]
        if inner:
            region, contour = zip(*inner)
            scores[object_id] = MaskScore(Series.of(region), Series.of(contour), len(inner))
    return scores, areas, num_held


def _mask_of(object_id: int, masks: BoolArray, result: ClipResult) -> BoolArray:
    """The (H, W) mask of a ground-truth object; empty if the object was not prompted."""
    if object_id == FOREGROUND:
        return np.asarray(masks.any(axis=0))
    column = np.flatnonzero(result.object_id == object_id)
    return masks[column[0]] if len(column) else np.zeros(masks.shape[1:], dtype=np.bool_)


def _with_points(
    masks: dict[int, MaskScore],
    num_held: int,
    result: ClipResult,
    truth: GroundTruth,
    known: TrackTruth,
    frames: Int64Array,
    areas: dict[int, dict[int, int]],
    query_mode: QueryMode,
) -> ClipScore:
    tracks = tracks_at(result, frames)
    counted = counted_positions(result.query, frames, query_mode)
    area = _area_of_points(result, frames, areas)
    size = int(result.attributes["width"]), int(result.attributes["height"])

    def score(points: BoolArray) -> PointScore:
        own = TrackTruth(known.xy[:, points], known.visible[:, points], known.annotated[:, points])
        return score_points(
            tracks.xy[:, points],
            tracks.visible[:, points],
            own,
            counted[:, points],
            width=size[0],
            height=size[1],
            areas=area[:, points],
        )

    return ClipScore(
        masks=masks,
        points=score(np.ones(len(result.query), dtype=np.bool_)),
        points_of={i: score(result.track_object_id == i) for i in sorted(set(result.track_object_id.tolist()))},
        flow=score_flow(result, truth),
        survival=survival(tracks.xy, known, result.query[:, 0].astype(np.int64), frames, size),
        num_held=num_held,
        num_interpolated=int(tracks.interpolated.sum()),
    )


def _area_of_points(result: ClipResult, frames: Int64Array, areas: dict[int, dict[int, int]]) -> Float64Array:
    """(F, N) ground-truth area in px of each point's object; NaN if no mask is annotated."""
    found = np.full((len(frames), len(result.query)), np.nan)
    for object_id, by_frame in areas.items():
        own = np.ones(len(result.query), dtype=np.bool_)
        own = own if object_id == FOREGROUND else result.track_object_id == object_id
        of_object = np.array([by_frame.get(frame, np.nan) for frame in frames.tolist()])
        found[:, own] = of_object[:, None]
    return found


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
