"""What a sweep over frame_interval says: quality against the interval, time and memory, per clip and in all."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aot.datasets.base import Dataset
from aot.datasets.ground_truth import GroundTruth
from aot.evaluate.agreement import ResultTruth
from aot.evaluate.clip import ClipScore, evaluate_clip
from aot.evaluate.parallel import map_in_processes
from aot.writing.reader import read_attributes

MEASURES = {"masks": "J&F", "tracks": "δ_avg"}
"""What is measured, and by which score; both in 0..1."""


@dataclass(frozen=True)
class SweptRun:
    """One run of a sweep."""

    root: Path
    group: str
    """What tells it from others of the sweep besides the interval; empty where nothing does."""
    frame_interval: int
    results: Mapping[str, Path]
    """Clip id → file, of the finished clips."""
    build_dataset: Callable[[], Dataset]


@dataclass(frozen=True)
class SweptClip:
    """One clip of one run."""

    group: str
    frame_interval: int
    """As the run was told."""
    frame_interval_used: int
    """Larger where memory ran out."""
    clip_id: str
    quality: Mapping[str, float]
    """Measure → score; NaN where there is nothing to measure by."""
    by_truth: Mapping[str, bool]
    """Measure → scored against ground truth; else by agreement with the finest run."""
    seconds: float
    peak_memory_bytes: int
    num_source_frames: int


@dataclass(frozen=True)
class Interval:
    """One interval of one group, over the clips that every run of the group has finished."""

    group: str
    frame_interval: int
    quality: Mapping[str, float]
    """Measure → mean over clips."""
    seconds: float
    """Sum over clips."""
    peak_memory_bytes: int
    """The most of any clip."""
    num_clips: int


def score_sweep(runs: Sequence[SweptRun], workers: int | None = None) -> list[SweptClip]:
    """Score every clip of every run, against the truth where there is one, else against the group's finest run."""
    finest = {run.group: min(runs, key=lambda other: (other.group != run.group, other.frame_interval)) for run in runs}
    tasks = [
        _Task(run, clip_id, path, finest[run.group].results.get(clip_id))
        for run in runs
        for clip_id, path in run.results.items()
    ]
    return list(map_in_processes(_score, tasks, workers))


def intervals_of(clips: Sequence[SweptClip]) -> list[Interval]:
    """Sum up each interval of each group, ascending."""
    by_run: dict[tuple[str, int], dict[str, SweptClip]] = defaultdict(dict)
    for clip in clips:
        by_run[clip.group, clip.frame_interval][clip.clip_id] = clip
    found = []
    for (group, frame_interval), own in sorted(by_run.items()):
        common = set.intersection(*(set(other) for (name, _), other in by_run.items() if name == group))
        chosen = [own[clip_id] for clip_id in sorted(common)]
        quality = {measure: _mean([clip.quality[measure] for clip in chosen]) for measure in MEASURES}
        found.append(
            Interval(
                group=group,
                frame_interval=frame_interval,
                quality=quality,
                seconds=sum(clip.seconds for clip in chosen),
                peak_memory_bytes=max((clip.peak_memory_bytes for clip in chosen), default=0),
                num_clips=len(chosen),
            )
        )
    return found


def largest_within(
    quality: Mapping[int, Mapping[str, float]], tolerance: float, measures: Sequence[str] = tuple(MEASURES)
) -> int:
    """The largest interval up to which every measure stays within a tolerance of the finest interval's.

    Args:
        quality: frame_interval → measure → score; NaN is not held against it.
        tolerance: how much of a score may be lost.
        measures: those that count.
    """
    intervals = sorted(quality)
    best = intervals[0]
    for interval in intervals:
        lost = [quality[intervals[0]][measure] - quality[interval][measure] for measure in measures]
        if any(not math.isnan(one) and one > tolerance for one in lost):
            break
        best = interval
    return best


@dataclass(frozen=True)
class _Task:
    run: SweptRun
    clip_id: str
    path: Path
    finest: Path | None


def _score(task: _Task) -> SweptClip:
    truth = task.run.build_dataset().ground_truth(task.clip_id)
    scores = _qualities(task.path, truth)
    by_truth = {measure: not math.isnan(score) for measure, score in scores.items()}
    if task.finest is not None and not all(by_truth.values()):
        agreement = _qualities(task.path, ResultTruth(task.finest))
        scores = {measure: scores[measure] if by_truth[measure] else agreement[measure] for measure in MEASURES}
    attributes = read_attributes(task.path)
    return SweptClip(
        group=task.run.group,
        frame_interval=task.run.frame_interval,
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
