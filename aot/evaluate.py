"""Scores against ground truth: region similarity J of masks, PCK of tracks.

`python -m aot.evaluate RUN` scores every finished clip of a run whose dataset knows the truth. Scores are over the
frames that the run kept: a decimated run is measured on fewer frames.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from aot.datasets.base import Dataset
from aot.datasets.ground_truth import FOREGROUND, GroundTruth
from aot.errors import AotError, ConfigError
from aot.paths import RunPaths
from aot.types import BoolArray, ClipResult, Float64Array, QueryPoints
from aot.writing.hdf5 import MaskReader, load

PCK_THRESHOLD = 0.2
"""Of the square root of the object's mask area, as BADJA (arXiv:1811.05804) counts a joint as found."""


@dataclass(frozen=True)
class ClipScore:
    """How well one clip's result fits the truth; None where the truth says nothing."""

    region_similarity: dict[int, float]
    """J per object id, the mean over frames; id 0 stands for the foreground of all objects together."""
    pck: float | None
    """Share of true points found within the threshold."""
    num_points: int
    """(frame, point) pairs that PCK is over."""
    visibility_accuracy: float | None
    """Share of annotated (frame, point) pairs whose visibility is right, query frames left out."""

    @property
    def mean_region_similarity(self) -> float | None:
        """J over the clip's objects."""
        return float(np.mean(list(self.region_similarity.values()))) if self.region_similarity else None


def region_similarity(mask: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two masks of one frame; 1 when both are empty.

    Args:
        mask, truth: (H, W) bool.
    Source: DAVIS 2016 benchmark (Perazzi et al., CVPR 2016), measure J.
    """
    if mask.shape != truth.shape:
        raise ValueError(f"region_similarity: got masks {mask.shape} and {truth.shape}, expected the same size")
    union = np.count_nonzero(mask | truth)
    return 1.0 if union == 0 else np.count_nonzero(mask & truth) / union


def evaluate_clip(path: Path, truth: GroundTruth) -> ClipScore:
    """Score one clip's file.

    Args:
        path: a file `clips/<clip_id>.h5`.
        truth: of the same clip.
    """
    result = load(path, masks=False)
    scored: dict[int, list[float]] = {}
    with MaskReader(path) as reader:
        annotated = [frame for frame in reader.index.tolist() if truth.mask(frame) is not None]
        # As the DAVIS toolkit does: the first frame is where the prompt usually is, the last is left out too.
        inner = set(annotated[1:-1])
        for frame, masks in reader:
            true_masks = truth.mask(frame) if frame in inner else None
            for object_id, true_mask in (true_masks or {}).items():
                scored.setdefault(object_id, []).append(
                    region_similarity(_mask_of(object_id, masks, result), true_mask)
                )
    similarity = {object_id: float(np.mean(values)) for object_id, values in sorted(scored.items())}
    return _with_tracks(result, truth, similarity)


def _mask_of(object_id: int, masks: BoolArray, result: ClipResult) -> BoolArray:
    """The (H, W) mask that answers to a true object; empty for one that was not prompted."""
    if object_id == FOREGROUND:
        return np.asarray(masks.any(axis=0))
    column = np.flatnonzero(result.object_id == object_id)
    return masks[column[0]] if len(column) else np.zeros(masks.shape[1:], dtype=np.bool_)


def _with_tracks(result: ClipResult, truth: GroundTruth, similarity: dict[int, float]) -> ClipScore:
    queries = QueryPoints(txy=result.query, object_id=result.track_object_id)
    true = truth.tracks(queries, result.index)
    if true is None:
        return ClipScore(similarity, None, 0, None)
    annotated = true.annotated & (result.index[:, None] != result.query[None, :, 0].astype(np.int64))
    limits = PCK_THRESHOLD * np.sqrt(_areas(result, truth))
    counted = annotated & true.visible & np.isfinite(limits)
    distance = np.linalg.norm(result.tracks.xy - true.xy, axis=-1)
    return ClipScore(
        region_similarity=similarity,
        pck=float((distance <= limits)[counted].mean()) if counted.any() else None,
        num_points=int(counted.sum()),
        visibility_accuracy=(
            float((result.tracks.visible == true.visible)[annotated].mean()) if annotated.any() else None
        ),
    )


def _areas(result: ClipResult, truth: GroundTruth) -> Float64Array:
    """(T, N) px of the true mask of every point's object; NaN where no mask is annotated."""
    areas = np.full(result.in_mask.shape, np.nan)
    for row, frame in enumerate(result.index.tolist()):
        for object_id, mask in (truth.mask(frame) or {}).items():
            own = slice(None) if object_id == FOREGROUND else result.track_object_id == object_id
            areas[row, own] = np.count_nonzero(mask)
    return areas


def format_scores(scores: Mapping[str, ClipScore]) -> str:
    """A plain table: a row a clip, and the mean over the clips that have the score."""
    rows = [
        (clip_id, s.mean_region_similarity, s.pck, s.visibility_accuracy, s.num_points) for clip_id, s in scores.items()
    ]
    columns = list(zip(*rows))
    means = [[value for value in column if value is not None] for column in columns[1:4]]
    mean = tuple(float(np.mean(values)) if values else None for values in means)
    rows.append(("mean", *mean, sum(columns[4])))
    width = max(len(str(row[0])) for row in rows)
    lines = [f"{'clip':<{width}}  {'J':>6}  {'PCK':>6}  {'visible':>7}  {'points':>7}"]
    for clip_id, similarity, pck, visibility, num_points in rows:
        lines.append(f"{clip_id:<{width}}  {_cell(similarity)}  {_cell(pck)}  {_cell(visibility):>7}  {num_points:>7}")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'–':>6}" if value is None or math.isnan(value) else f"{value:6.3f}"


def main(arguments: Sequence[str] | None = None) -> int:
    from aot.config import load_run_config
    from aot.launching.plan import read_run_json

    parser = argparse.ArgumentParser(
        prog="python -m aot.evaluate",
        description="Score a run against its dataset's ground truth: J (region similarity; mean over frames but the "
        "first and last) and PCK (share of true points within 0.2 times the square root of the object's area).",
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd")
    parser.add_argument("--json", type=Path, help="write the scores to this file too")
    options = parser.parse_args(arguments)
    try:
        paths = RunPaths(options.run)
        run = read_run_json(paths)
        dataset: Dataset = load_run_config(run).dataset.build()
        scores, unscored = {}, []
        for clip_id in run["clips"]:
            truth = dataset.ground_truth(clip_id)
            if truth is None or not paths.clip(clip_id).result.exists():
                unscored.append(clip_id)
            else:
                scores[clip_id] = evaluate_clip(paths.clip(clip_id).result, truth)
        if not scores:
            raise ConfigError(
                f"{options.run}: none of its {len(run['clips'])} clips is finished and has ground truth; "
                f"the dataset {run['choices']['dataset']!r} knows none, or nothing is finished yet"
            )
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    print(format_scores(scores))
    if unscored:
        print(f"not scored (unfinished, or no ground truth): {', '.join(unscored)}")
    if options.json:
        options.json.write_text(json.dumps({clip_id: asdict(score) for clip_id, score in scores.items()}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
