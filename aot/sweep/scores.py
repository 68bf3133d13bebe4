"""Scores of a sweep over frame_interval or sample_fps: quality, time and memory, per clip and per spacing."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aot.datasets.base import read_ground_truth
from aot.datasets.ground_truth import GroundTruth
from aot.evaluate.agreement import ResultTruth
from aot.evaluate.clip import ClipScore, evaluate_clip
from aot.evaluate.parallel import map_in_processes
from aot.sweep.runs import Spacing, SweptRun
from aot.writing.reader import read_attributes

MEASURES = {"masks": "J&F", "tracks": "δ_avg"}
"""Measure → name of its score; scores are in 0..1."""


@dataclass(frozen=True)
class SweptClip:
    """Scores of one clip in one run."""

    group: str
    spacing: Spacing
    """The requested one."""
    frame_interval_used: int
    """The interval used; larger than requested if memory ran out."""
    clip_id: str
    quality: Mapping[str, float]
    """Measure → score; NaN if neither ground truth nor a finer run is available."""
    by_truth: Mapping[str, bool]
    """Measure → True: scored against ground truth; False: by agreement with the finest run."""
    seconds: float
    """Sum over all stages."""
    peak_memory_bytes: int
    num_source_frames: int


@dataclass(frozen=True)
class Interval:
    """Scores of one spacing of one group, over the clips that every run of the group has finished."""

    group: str
    spacing: Spacing
    quality: Mapping[str, float]
    """Measure → mean over clips."""
    seconds: float
    """Sum over clips."""
    peak_memory_bytes: int
    """Maximum over clips."""
    num_clips: int


def score_sweep(runs: Sequence[SweptRun], workers: int | None = None) -> list[SweptClip]:
    """Score every clip of every run: against ground truth if there is any, otherwise against the group's finest run.

    Args:
        runs: the runs of the sweep.
        workers: number of processes; None: one per core.
    Raises:
        AotError: a result or its ground truth cannot be read.
    """
    finest = {run.group: min(runs, key=lambda other: (other.group != run.group, other.spacing)) for run in runs}
    tasks = [
        _Task(run, clip_id, path, finest[run.group].results.get(clip_id))
        for run in runs
        for clip_id, path in run.results.items()
    ]
    return list(map_in_processes(_score, tasks, workers))


def summarize_intervals(clips: Sequence[SweptClip]) -> list[Interval]:
    """Summarize each spacing of each group, the finest first."""
    by_run: dict[tuple[str, Spacing], dict[str, SweptClip]] = defaultdict(dict)
    for clip in clips:
        by_run[clip.group, clip.spacing][clip.clip_id] = clip
    intervals = []
    for (group, spacing), own in sorted(by_run.items()):
        common = set.intersection(*(set(other) for (name, _), other in by_run.items() if name == group))
        chosen = [own[clip_id] for clip_id in sorted(common)]
        quality = {measure: _mean([clip.quality[measure] for clip in chosen]) for measure in MEASURES}
        intervals.append(
            Interval(
                group=group,
                spacing=spacing,
                quality=quality,
                seconds=sum(clip.seconds for clip in chosen),
                peak_memory_bytes=max((clip.peak_memory_bytes for clip in chosen), default=0),
                num_clips=len(chosen),
            )
        )
    return intervals


def coarsest_within(
    quality: Mapping[Spacing, Mapping[str, float]], tolerance: float, measures: Sequence[str] = tuple(MEASURES)
) -> Spacing:
    """The coarsest spacing up to which every measure stays within a tolerance of the finest spacing.

    Args:
        quality: spacing → measure → score; NaN is ignored.
        tolerance: maximum loss of a score.
        measures: measures to check.
    """
    spacings = sorted(quality)
    best = spacings[0]
    for spacing in spacings:
        losses = [quality[spacings[0]][measure] - quality[spacing][measure] for measure in measures]
        if any(not math.isnan(loss) and loss > tolerance for loss in losses):
            break
        best = spacing
    return best


@dataclass(frozen=True)
class _Task:
    run: SweptRun
    clip_id: str
    path: Path
    finest: Path | None


def _score(task: _Task) -> SweptClip:
    truth = read_ground_truth(task.run.build_dataset(), task.clip_id)
    scores = _qualities(task.path, truth)
    by_truth = {measure: not math.isnan(score) for measure, score in scores.items()}
    if task.finest is not None and not all(by_truth.values()):
        agreement = _qualities(task.path, ResultTruth(task.finest))
        scores = {measure: scores[measure] if by_truth[measure] else agreement[measure] for measure in MEASURES}
    attributes = read_attributes(task.path)
    return SweptClip(
        group=task.run.group,
        spacing=task.run.spacing,
        frame_interval_used=int(attributes["frame_interval"]),
        clip_id=task.clip_id,
        quality=scores,
        by_truth=by_truth,
        seconds=float(sum(json.loads(attributes["seconds"]).values())),
        peak_memory_bytes=int(attributes["peak_memory_bytes"]),
        num_source_frames=int(attributes["num_source_frames"]),
    )


def _qualities(path: Path, truth: GroundTruth | None) -> dict[str, float]:
    score = ClipScore({}, None) if truth is None else evaluate_clip(path, truth)
    row = score.as_row()
    values = {"masks": row["J&F"], "tracks": row["delta_avg"]}
    return {measure: math.nan if value is None else value for measure, value in values.items()}


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
