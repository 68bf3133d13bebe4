"""Score the clips of a run against ground truth, in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aot.config import load_run_config
from aot.datasets.base import Dataset, read_ground_truth
from aot.datasets.ground_truth import QueryMode
from aot.errors import AotError
from aot.evaluate.clip import ClipScore, evaluate_clip
from aot.evaluate.parallel import map_in_processes
from aot.paths import RunPaths
from aot.runs.run_json import read_run_json


@dataclass(frozen=True)
class ScoreTask:
    """One clip to score; picklable."""

    clip_id: str
    result: Path
    """`clips/<clip_id>.h5` of the run."""
    build_dataset: Callable[[], Dataset]
    query_mode: QueryMode | None
    """None: as in the benchmark of the ground truth."""


@dataclass(frozen=True)
class RunScores:
    """The scores of a run; each of its clips is in exactly one of the three fields."""

    scores: Mapping[str, ClipScore]
    """Clip id → score."""
    errors: Mapping[str, AotError]
    """Clip id → why it could not be scored: its file or its ground truth is damaged."""
    unscored: Sequence[str]
    """Clips that are unfinished or have no ground truth."""


def evaluate_run(root: Path, *, query_mode: QueryMode | None = None, workers: int | None = None) -> RunScores:
    """Score the finished clips of a run folder.

    Args:
        root: the run folder.
        query_mode: on which frames tracks are scored; None: as in the benchmark of the ground truth.
        workers: number of processes; None: one per core.
    Raises:
        ConfigError: not a run folder, or its dataset can no longer be created.
    """
    paths = RunPaths(root)
    run = read_run_json(paths)
    build = load_run_config(run).dataset.build
    finished = [clip_id for clip_id in run["clips"] if paths.clip(clip_id).result.exists()]
    tasks = [ScoreTask(clip_id, paths.clip(clip_id).result, build, query_mode) for clip_id in finished]
    outcomes = dict(evaluate_clips(tasks, workers))
    return RunScores(
        scores={clip_id: score for clip_id, score in outcomes.items() if isinstance(score, ClipScore)},
        errors={clip_id: error for clip_id, error in outcomes.items() if isinstance(error, AotError)},
        unscored=[clip_id for clip_id in run["clips"] if outcomes.get(clip_id) is None],
    )


def evaluate_clips(
    tasks: Sequence[ScoreTask], workers: int | None = None
) -> Iterator[tuple[str, ClipScore | AotError | None]]:
    """Score clips, in the order given.

    Args:
        tasks: finished clips.
        workers: number of processes; None: one per core. 1: this process.
    Returns:
        Clip ids and scores; None if there is no ground truth, the error if the file or the ground truth is damaged.
    """
    yield from map_in_processes(_evaluate, tasks, workers)


def _evaluate(task: ScoreTask) -> tuple[str, ClipScore | AotError | None]:
    try:
        truth = read_ground_truth(task.build_dataset(), task.clip_id)
        return task.clip_id, None if truth is None else evaluate_clip(task.result, truth, task.query_mode)
    except AotError as error:
        return task.clip_id, error
