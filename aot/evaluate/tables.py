"""The scores of a run as rows, CSV, JSON, and a table for the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.table import Table

from aot.errors import printable
from aot.evaluate.clip import ClipScore
from aot.evaluate.flow import FLOW_THRESHOLDS
from aot.evaluate.masks import MaskScore
from aot.evaluate.tracks import THRESHOLDS, PointScore

COLUMNS = (
    "clip_id object_id J&F J F J_recall J_decay F_recall F_decay mask_frames held_frames AJ delta_avg OA PCK "
    "positions interpolated_frames"
).split()
POINT_COLUMNS = [f"{name}_{threshold}" for name in ("delta", "jaccard") for threshold in THRESHOLDS]
FLOW_COLUMNS = ["EPE", *(f"flow_{threshold}" for threshold in FLOW_THRESHOLDS), "survival"]
COLUMNS += POINT_COLUMNS + FLOW_COLUMNS
ALL_CLIPS = "(all)"
"""Clip id of the row that summarizes the dataset."""

_HEADINGS = {
    "J&F": "J&F", "J": "J", "F": "F", "AJ": "AJ", "delta_avg": "δ_avg", "OA": "OA", "PCK": "PCK", "EPE": "EPE",
    "survival": "survival",
}  # fmt: skip


def score_rows(scores: Mapping[str, ClipScore]) -> list[dict[str, Any]]:
    """One row for the dataset, then one per clip, each followed by its objects; cells without a score are empty.

    As in the DAVIS toolkit, the dataset's J and F are means over objects; as in TAP-Vid, its track scores are means
    over clips.
    """
    clip_rows: list[dict[str, Any]] = []
    for clip_id, score in scores.items():
        points = _point_cells(score.points)
        of_clip = {"clip_id": clip_id} | _mean_of_masks(list(score.masks.values())) | points
        of_clip |= _flow_cells(score)
        of_clip |= {"held_frames": score.num_held, "interpolated_frames": score.num_interpolated}
        clip_rows.append(_row(of_clip))
        for object_id in sorted({*score.masks, *score.points_of}):
            mask = score.masks.get(object_id)
            cells = _mean_of_masks([mask] if mask else []) | _point_cells(score.points_of.get(object_id))
            clip_rows.append(_row({"clip_id": clip_id, "object_id": object_id} | cells))
    of_all = _mean_of_masks([mask for score in scores.values() for mask in score.masks.values()])
    clips_only = [row for row in clip_rows if row["object_id"] == ""]
    for name in ("AJ", "delta_avg", "OA", "PCK", *POINT_COLUMNS, *FLOW_COLUMNS):
        values = [row[name] for row in clips_only if row[name] != ""]
        of_all[name] = float(np.mean(values)) if values else None
    for name in ("positions", "held_frames", "interpolated_frames"):
        of_all[name] = sum(row[name] for row in clips_only if row[name] != "")
    return [_row({"clip_id": ALL_CLIPS} | of_all), *clip_rows]


def scores_as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `score_rows` as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def scores_as_json(scores: Mapping[str, ClipScore], rows: Sequence[Mapping[str, Any]]) -> str:
    """`{"all": {…}, "clips": {clip_id: {"scores": {…}, "objects": {…}, …}}}`; null for unknown scores."""
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


def score_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """One line per clip, then one for the dataset; columns without any score are omitted."""
    shown = [*(row for row in rows[1:] if row["object_id"] == ""), rows[0]]
    columns = [name for name in _HEADINGS if any(row[name] != "" for row in shown)]
    table = Table(box=None, pad_edge=False)
    table.add_column("clip", overflow="fold")
    for name in columns:
        table.add_column(_HEADINGS[name], justify="right", no_wrap=True)
    for row in shown:
        table.add_row(
            printable(str(row["clip_id"])), *("–" if row[name] == "" else f"{row[name]:.3f}" for name in columns)
        )
    return table


def _row(cells: Mapping[str, Any]) -> dict[str, Any]:
    """All columns; None and NaN become empty cells."""
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


def _flow_cells(score: ClipScore) -> dict[str, Any]:
    cells: dict[str, Any] = {"survival": score.survival}
    if score.flow is not None:
        cells |= {"EPE": score.flow.end_point_error}
        cells |= {f"flow_{threshold}": value for threshold, value in score.flow.within.items()}
    return cells


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)
