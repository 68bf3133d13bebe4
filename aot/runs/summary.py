"""What a run came to: one row a clip, as a table on the terminal and as summary.csv."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from aot.config import Output
from aot.paths import RunPaths
from aot.runs.failure import read_failure
from aot.runs.ledger import last_done
from aot.self_checks import CHECKS, worst
from aot.system.files import write_text

COLUMNS = (
    "clip_id state objects points frames source_frames frame_interval rung attempts visible in_mask mask_stability "
    "return_error_px seconds frames_per_second peak_memory_mb J F AJ OA PCK error"
).split()

_HEADINGS = {
    "clip_id": "clip", "state": "state", "objects": "objects", "points": "points", "frames": "frames",
    "frame_interval": "interval", "visible": "visible", "in_mask": "in mask", "mask_stability": "stability",
    "return_error_px": "return px", "seconds": "seconds",
    "J": "J", "PCK": "PCK",
}  # fmt: skip

# More rows than this scroll the totals out of sight; the file has them all.
_MAX_ROWS = 40


def summary_rows(paths: RunPaths, clip_ids: Sequence[str]) -> list[dict[str, Any]]:
    """One row a clip, by what lies on the disk: done, partial, failed or pending."""
    done = last_done(paths, "summary", "scores")
    return [_row(paths, clip_id, done.get(clip_id)) for clip_id in clip_ids]


def write_summary(paths: RunPaths, rows: Sequence[dict[str, Any]]) -> None:
    """Write summary.csv.

    Raises:
        WriteError: the run folder cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    write_text(paths.summary, text.getvalue())


def print_summary(paths: RunPaths, output: Output, rows: Sequence[dict[str, Any]], console: Console) -> None:
    """The closing table: all clips of a small run, what is not whole of a large one; the totals; where to look."""
    shown = [row for row in rows if len(rows) <= _MAX_ROWS or row["state"] != "done"][:_MAX_ROWS]
    table = Table(box=None, pad_edge=False)
    for column, heading in _HEADINGS.items():
        if any(row[column] != "" for row in rows):
            table.add_column(heading, justify="left" if column in ("clip_id", "state") else "right", overflow="fold")
    for row in shown:
        table.add_row(*(_text(row[column]) for column in _HEADINGS if any(other[column] != "" for other in rows)))
    console.print(table)
    for row in shown:
        if row["rung"] not in ("", 1):
            leaner = f"rung {row['rung']} of the ladder: lean, frame_interval {row['frame_interval']}"
            console.print(f"{row['clip_id']}: out of memory before; done on {leaner}", markup=False, highlight=False)
        if row["error"]:
            console.print(f"{row['clip_id']}: {row['error']}", markup=False, highlight=False)
    counts = Counter(row["state"] for row in rows)
    total = ", ".join(f"{counts[state]} {state}" for state in ("done", "partial", "failed", "pending") if counts[state])
    lines = [f"{len(rows)} clips: {total}"]
    if any(row["J"] != "" or row["PCK"] != "" for row in rows):
        lines.append(f"against the known truth: mean J {_mean(rows, 'J')}, mean PCK {_mean(rows, 'PCK')}")
    looks = ["clips/*.h5 (aot.load)", *(["overlays/*.mp4"] if output.overlay else []), "summary.csv"]
    looks += ["pictures/*/*.png"] if output.pictures else []
    looks += ["failures/*.json"] if counts["failed"] + counts["partial"] else []
    looks += ["report/index.html"] if output.report else []
    lines.append(f"look at {paths.root}: {', '.join(looks)}")
    console.print("\n".join(lines), markup=False, highlight=False)


def _row(paths: RunPaths, clip_id: str, done: dict[str, Any] | None) -> dict[str, Any]:
    clip = paths.clip(clip_id)
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"clip_id": clip_id, "state": "pending"}
    failure = read_failure(clip)
    if clip.result.exists() and done is not None:
        summary, scores = done["summary"], done.get("scores") or {}
        spent = sum(seconds for stage, seconds in summary["seconds"].items())
        notes = [scores["error"]] if "error" in scores else []
        errors = [f"object {object_id}: {message}" for object_id, message in summary["object_errors"].items()]
        row |= {
            "state": "partial" if errors else "done",
            "objects": summary["num_objects"],
            "points": summary["num_points"],
            "frames": summary["num_frames"],
            "source_frames": summary["num_source_frames"],
            "frame_interval": summary["frame_interval"],
            "rung": summary.get("rung", 1),
            "attempts": summary.get("num_attempts", 1),
            "visible": summary["visible_share"],
            "in_mask": summary["in_mask_share"],
            **{name: _blank_nan(worst(summary.get("checks", {}), name)) for name in CHECKS[2:]},
            "seconds": spent,
            "frames_per_second": summary["num_frames"] / spent,
            "peak_memory_mb": summary["peak_memory_bytes"] / 2**20,
            **{name: _blank_none(scores.get(name)) for name in ("J", "F", "AJ", "OA", "PCK")},
            "error": "; ".join([*errors, *notes]),
        }
        row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
    elif clip.result.exists():
        row["state"] = "done"
    if failure:
        row |= {
            "state": "partial" if clip.result.exists() else "failed",
            "error": f"[{failure['class']}] {failure['message']}",
        }
    return row


def _blank_nan(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _blank_none(value: Any) -> Any:
    return "" if value is None else value


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _mean(rows: Sequence[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows if row[column] != ""]
    return f"{sum(values) / len(values):.3f}" if values else "–"
