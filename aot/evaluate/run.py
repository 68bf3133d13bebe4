"""All clips of a run against the truth, on several cores; and the table, CSV and JSON of what came out."""

from __future__ import annotations

import csv
import io
import json
import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from aot.datasets.base import Dataset
from aot.datasets.ground_truth import QueryMode
from aot.errors import AotError
from aot.evaluate.clip import ClipScore, evaluate_clip
from aot.evaluate.masks import MaskScore
from aot.evaluate.tracks import THRESHOLDS, PointScore

COLUMNS = (
    "clip_id object_id J&F J F J_recall J_decay F_recall F_decay mask_frames held_frames AJ delta_avg OA PCK "
    "positions interpolated_frames"
).split() + [f"{name}_{threshold}" for name in ("delta", "jaccard") for threshold in THRESHOLDS]
ALL_CLIPS = "(all)"
"""In place of a clip's id: the whole dataset."""

_Given = TypeVar("_Given")
_Came = TypeVar("_Came")

_SHOWN = {"J&F": "J&F", "J": "J", "F": "F", "AJ": "AJ", "delta_avg": "δ_avg", "OA": "OA", "PCK": "PCK"}


@dataclass(frozen=True)
class Task:
    """One clip to score; everything in it can be sent to another process."""

    clip_id: str
    result: Path
    build_dataset: Callable[[], Dataset]
    query_mode: QueryMode | None


def evaluate_clips(
    tasks: Sequence[Task], workers: int | None = None
) -> Iterator[tuple[str, ClipScore | AotError | None]]:
    """Score clips in the order given.

    Args:
        tasks: finished clips.
        workers: processes; None: one a core. One means here, in this process.
    Returns:
        Clip ids and scores; None where nothing is known of the clip, the error where its file or its truth is damaged.
    """
    yield from in_processes(_evaluate, tasks, workers)


def in_processes(work: Callable[[_Given], _Came], tasks: Sequence[_Given], workers: int | None) -> Iterator[_Came]:
    """Apply a function of a module to tasks, in the order given.

    Args:
        work, tasks: what can be sent to another process.
        workers: None: one a core. One means here, in this process.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        yield from map(work, tasks)
        return
    # Spawned, not forked: HDF5 and OpenCV have threads that a fork leaves in the middle of something.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_use_one_thread) as pool:
        yield from pool.map(work, tasks)


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)


def _evaluate(task: Task) -> tuple[str, ClipScore | AotError | None]:
    try:
        truth = task.build_dataset().ground_truth(task.clip_id)
        return task.clip_id, None if truth is None else evaluate_clip(task.result, truth, task.query_mode)
    except AotError as error:
        return task.clip_id, error


def score_rows(scores: Mapping[str, ClipScore]) -> list[dict[str, Any]]:
    """The whole dataset, then every clip followed by its objects; a cell is empty where nothing is known.

    J and F of the dataset are means over objects, as the DAVIS toolkit has them; of tracks, means over clips, as
    TAP-Vid has them.
    """
    clip_rows: list[dict[str, Any]] = []
    for clip_id, score in scores.items():
        points = _point_cells(score.points)
        of_clip = {"clip_id": clip_id} | _mean_of_masks(list(score.masks.values())) | points
        of_clip |= {"held_frames": score.num_held, "interpolated_frames": score.num_interpolated}
        clip_rows.append(_row(of_clip))
        for object_id in sorted({*score.masks, *score.points_of}):
            mask = score.masks.get(object_id)
            cells = _mean_of_masks([mask] if mask else []) | _point_cells(score.points_of.get(object_id))
            clip_rows.append(_row({"clip_id": clip_id, "object_id": object_id} | cells))
    of_all = _mean_of_masks([mask for score in scores.values() for mask in score.masks.values()])
    clips_only = [row for row in clip_rows if row["object_id"] == ""]
    for name in ("AJ", "delta_avg", "OA", "PCK", *COLUMNS[-2 * len(THRESHOLDS) :]):
        values = [row[name] for row in clips_only if row[name] != ""]
        of_all[name] = float(np.mean(values)) if values else None
    for name in ("positions", "held_frames", "interpolated_frames"):
        of_all[name] = sum(row[name] for row in clips_only if row[name] != "")
    return [_row({"clip_id": ALL_CLIPS} | of_all), *clip_rows]


def scores_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a row of `score_rows`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def scores_as_json(scores: Mapping[str, ClipScore], rows: Sequence[Mapping[str, Any]]) -> str:
    """`{"all": {…}, "clips": {clip_id: {"scores": {…}, "objects": {…}, …}}}`; null where nothing is known."""
    overall = {name: value for name, value in rows[0].items() if value != "" and name not in ("clip_id", "object_id")}
    clips = {}
    for clip_id, score in scores.items():
        clips[clip_id] = {
            "scores": score.as_row(),
            "objects": {
                str(object_id): {
                    "masks": asdict(score.masks[object_id]) if object_id in score.masks else None,
                    "points": asdict(score.points_of[object_id]) if object_id in score.points_of else None,
                }
                for object_id in sorted({*score.masks, *score.points_of})
            },
            "held_frames": score.num_held,
            "interpolated_frames": score.num_interpolated,
        }
    return json.dumps({"all": overall, "clips": clips}, indent=1)


def format_scores(rows: Sequence[Mapping[str, Any]]) -> str:
    """A plain table of the clips, and the whole dataset in the last line; only columns in which something is known."""
    shown = [*(row for row in rows[1:] if row["object_id"] == ""), rows[0]]
    columns = [name for name in _SHOWN if any(row[name] != "" for row in shown)]
    width = max(len(str(row["clip_id"])) for row in shown)
    lines = ["  ".join([f"{'clip':<{width}}", *(f"{_SHOWN[name]:>6}" for name in columns)])]
    for row in shown:
        lines.append("  ".join([f"{row['clip_id']:<{width}}", *(_cell(row[name]) for name in columns)]))
    return "\n".join(lines)


def _row(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Every column; what is None or NaN reads as empty."""
    row = dict.fromkeys(COLUMNS, "") | dict(cells)
    return {name: "" if value is None or _is_nan(value) else value for name, value in row.items()}


def _mean_of_masks(scores: Sequence[MaskScore]) -> dict[str, Any]:
    if not scores:
        return {}
    cells = {"J&F": np.mean([score.mean for score in scores])}
    for letter, series in (("J", [s.region for s in scores]), ("F", [s.contour for s in scores])):
        cells[letter] = np.mean([one.mean for one in series])
        cells[f"{letter}_recall"] = np.mean([one.recall for one in series])
        cells[f"{letter}_decay"] = np.mean([one.decay for one in series])
    return {name: float(value) for name, value in cells.items()} | {"mask_frames": sum(s.num_frames for s in scores)}


def _point_cells(score: PointScore | None) -> dict[str, Any]:
    if score is None:
        return {}
    return {
        "AJ": score.average_jaccard,
        "delta_avg": score.average_within,
        "OA": score.occlusion_accuracy,
        "PCK": score.pck,
        "positions": score.num_positions,
        **{f"delta_{threshold}": value for threshold, value in score.within.items()},
        **{f"jaccard_{threshold}": value for threshold, value in score.jaccard.items()},
    }


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(value: Any) -> str:
    return f"{'–':>6}" if value == "" else f"{value:6.3f}"
