"""The outcome of a run: one row per clip, as a table on the terminal and as summary.csv."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from aot.config import Output
from aot.errors import printable
from aot.paths import RunPaths
from aot.runs.failure import read_failure
from aot.runs.ledger import COMPLETE, outlines
from aot.runs.timing import STAGES, WorkerTimes, describe_busy, latest_seconds, result_seconds
from aot.self_checks import CHECKS, worst
from aot.system.files import names_below, write_text
from aot.system.text import counted

NO_PROMPT = "no prompt"
STATES = ("done", "partial", "failed", "pending", NO_PROMPT)

COLUMNS: list[str] = (
    "clip_id state objects points frames source_frames frame_interval rung attempts visible in_mask mask_stability "
    "return_error_px seconds frames_per_second peak_memory_mb J F AJ OA PCK decoder decoder_fallback error notes"
).split()
# Added at the end, where they break no script that reads earlier tables by position.
COLUMNS += [f"{stage}_seconds" for stage in STAGES]
COLUMNS += ["peak_device_memory_mb", "worker", "worker_busy", "coverage", "ended", "added"]

_HEADINGS = {
    "clip_id": "clip", "state": "state", "objects": "objects", "points": "points", "frames": "frames",
    "frame_interval": "interval", "visible": "visible", "in_mask": "in mask", "mask_stability": "stability",
    "return_error_px": "return px", "coverage": "coverage", "seconds": "seconds",
    "J": "J", "PCK": "PCK", "decoder": "decoder",
}  # fmt: skip

# More rows than this would scroll the totals off the screen; summary.csv has all of them.
_MAX_ROWS = 40


def summary_rows(paths: RunPaths, clip_ids: Sequence[str], without_prompt: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row per clip, from the files in the run folder; the keys are `COLUMNS`.

    Args:
        paths: of the run folder.
        clip_ids: of the rows.
        without_prompt: ids of clips that are not processed, because they have no prompt; their rows come last.
    """
    records = read_records(paths) if clip_ids else Records()
    return rows_of(paths, records, clip_ids, without_prompt)


@dataclass
class Records:
    """What the ledgers record of the clips of a run."""

    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Clip id → its latest result: at, summary, worker, scores, and drawing_seconds per stage."""
    times: WorkerTimes = field(default_factory=WorkerTimes)


def read_records(paths: RunPaths) -> Records:
    """Read the ledgers of a run, once."""
    records = Records()
    done, drawings = records.done, defaultdict(list)
    scored: dict[str, tuple[str, Any]] = {}
    for event in outlines(paths, (*COMPLETE, "scored", "ended")):
        records.times.add(event)
        clip_id, at = event["clip_id"], event["at"]
        if event["event"] in COMPLETE:
            if clip_id not in done or done[clip_id]["at"] <= at:
                done[clip_id] = {name: event.get(name) for name in ("at", "summary", "scores", "worker")}
        elif event["event"] == "scored":
            if clip_id not in scored or scored[clip_id][0] <= at:
                scored[clip_id] = at, event.get("scores")
        elif event["event"] == "ended" and event.get("seconds"):
            drawings[clip_id].append((at, event["seconds"]))
    for clip_id, record in done.items():
        if clip_id in scored and record["at"] <= scored[clip_id][0]:
            record["scores"] = scored[clip_id][1]
        record["drawing_seconds"] = latest_seconds(drawings.get(clip_id, ()), record["at"])
    return records


def rows_of(
    paths: RunPaths, records: Records, clip_ids: Sequence[str], without_prompt: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """One row per clip; see `summary_rows`.

    Args:
        paths, clip_ids, without_prompt: as there.
        records: of the run.
    """
    workers = records.times.by_worker
    results, failures = (
        (names_below(paths.results, ".h5"), names_below(paths.failures, ".json")) if clip_ids else (set(), set())
    )
    rows = []
    for clip_id in clip_ids:
        done = records.done.get(clip_id)
        if done is not None:
            done["worker_busy"] = workers[done["worker"]].busy_fraction if done["worker"] in workers else ""
        failure = read_failure(paths.clip(clip_id)) if clip_id in failures else None
        rows.append(_row(clip_id, done, failure, has_result=clip_id in results))
    return rows + [dict.fromkeys(COLUMNS, "") | {"clip_id": clip_id, "state": NO_PROMPT} for clip_id in without_prompt]


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


def print_summary(
    paths: RunPaths, output: Output, rows: Sequence[dict[str, Any]], times: WorkerTimes, console: Console
) -> None:
    """Print the table of a run, its totals, and where the results are.

    Args:
        paths: of the run folder.
        output: which files the run writes.
        rows: of `summary_rows`; of a large run, only clips that are not done are printed.
        times: of the workers of the run.
        console: to print to.
    """
    shown = [row for row in rows if len(rows) <= _MAX_ROWS or row["state"] not in ("done", NO_PROMPT)][:_MAX_ROWS]
    console.print(_table(rows, shown))
    lines = [*_notes(shown), *_totals(rows), *_busy(times), _where(paths, output, rows)]
    console.print("\n".join(lines), markup=False, highlight=False)


def _table(rows: Sequence[dict[str, Any]], shown: Sequence[dict[str, Any]]) -> Table:
    """The table of the shown rows, with the columns that have a value in any row."""
    columns = [column for column in _HEADINGS if any(row[column] != "" for row in rows)]
    table = Table(box=None, pad_edge=False)
    for column in columns:
        justify = "left" if column in ("clip_id", "state", "decoder") else "right"
        table.add_column(_HEADINGS[column], justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in shown:
        table.add_row(*(printable(_text(row[column])) for column in columns))
    return table


def _notes(shown: Sequence[dict[str, Any]]) -> list[str]:
    """A line per clip that was computed on a leaner rung or by another decoder, and one per error."""
    lines = []
    for row in shown:
        if row["rung"] not in ("", 1):
            lines.append(
                f"{row['clip_id']}: ran out of memory; done on rung {row['rung']} of the ladder: lean, "
                f"frame_interval {row['frame_interval']}"
            )
        if row["decoder_fallback"]:
            lines.append(f"{row['clip_id']}: decoded by {row['decoder']}: {row['decoder_fallback']}")
        lines += [f"{row['clip_id']}: {row[column]}" for column in ("error", "notes") if row[column]]
    return [printable(line) for line in lines]


def _totals(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The number of clips per state; the mean scores, if clips were scored."""
    counts = Counter(row["state"] for row in rows)
    total = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [f"{counted(len(rows), 'clip')}: {total}" if rows else "0 clips"]
    if any(row["J"] != "" or row["PCK"] != "" for row in rows):
        lines.append(f"against ground truth: mean J {_mean(rows, 'J')}, mean PCK {_mean(rows, 'PCK')}")
    return lines


def _busy(times: WorkerTimes) -> list[str]:
    return [] if times.busy_fraction is None else [describe_busy(times)]


def _where(paths: RunPaths, output: Output, rows: Sequence[dict[str, Any]]) -> str:
    """The files of a run that are worth opening, relative to its folder; without a result, those that say why."""
    finished = [paths.clip(row["clip_id"]) for row in rows if row["state"] in ("done", "partial")]
    troubled = [paths.clip(row["clip_id"]) for row in rows if row["state"] in ("failed", "partial")]
    is_recorded = any(clip.failure.exists() for clip in troubled)
    written = {
        "clips/*.h5 (aot.load)": bool(finished),
        "overlays/*.mp4": output.overlay and any(clip.overlay.exists() for clip in finished),
        "summary.csv": True,
        "pictures/*/*.png": output.pictures and any(next(clip.pictures.glob("*.png"), None) for clip in finished),
        "failures/*.json": is_recorded,
        "logs/*.log": is_recorded and not finished,
        "report/index.html": output.report,
    }
    files = ", ".join(name for name, is_written in written.items() if is_written)
    return f"results in {paths.root}: {files}" if finished else f"no results in {paths.root}, only {files}"


def _row(
    clip_id: str, done: dict[str, Any] | None, failure: dict[str, Any] | None, *, has_result: bool
) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"clip_id": clip_id, "state": "pending"}
    if has_result:
        row |= {"state": "done"} if done is None else _done_columns(done)
    if failure:
        row |= {
            "state": "partial" if has_result else "failed",
            "error": f"[{failure['class']}] {failure['message']}",
        }
    return row


def _done_columns(done: dict[str, Any]) -> dict[str, Any]:
    """The columns of a finished clip, from its "done" event."""
    summary, scores = done["summary"], done.get("scores") or {}
    seconds = result_seconds(summary["seconds"])
    stages = summary["seconds"] | done["drawing_seconds"]
    if "decode" in stages:  # in version 0.1
        stages["wait_for_frames"] = stages["decode"]
    device_bytes = summary.get("peak_device_bytes", {}).values()
    object_errors = [
        # Most messages begin with the object.
        message if re.match(rf"object {object_id}\b", message) else f"object {object_id}: {message}"
        for object_id, message in summary["object_errors"].items()
    ]
    columns = {
        "state": "partial" if object_errors else "done",
        "objects": summary["num_objects"],
        "points": summary["num_points"],
        "frames": summary["num_frames"],
        "source_frames": summary["num_source_frames"],
        "frame_interval": summary["frame_interval"],
        "rung": summary.get("rung", 1),
        "attempts": summary.get("num_attempts", 1),
        "visible": summary["visible_share"],
        "in_mask": _blank_nan(summary["in_mask_share"]),
        **{name: _blank_nan(worst(summary.get("checks", {}), name)) for name in CHECKS[2:]},
        "seconds": seconds,
        "frames_per_second": summary["num_frames"] / seconds,
        "peak_memory_mb": summary["peak_memory_bytes"] / 2**20,
        **{name: _blank_none(scores.get(name)) for name in ("J", "F", "AJ", "OA", "PCK")},
        "decoder": summary.get("decoder", ""),
        "decoder_fallback": summary.get("decoder_fallback", ""),
        "error": "; ".join([*object_errors, *([scores["error"]] if "error" in scores else [])]),
        "notes": "; ".join(summary.get("notes", ())),
        **{f"{stage}_seconds": stages.get(stage, "") for stage in STAGES},
        "peak_device_memory_mb": max(device_bytes) / 2**20 if device_bytes else "",
        "worker": done["worker"],
        "worker_busy": done["worker_busy"],
    }
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in columns.items()}


def _blank_nan(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _blank_none(value: Any) -> Any:
    return "" if value is None else value


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _mean(rows: Sequence[dict[str, Any]], column: str) -> str:
    values = [row[column] for row in rows if row[column] != ""]
    return f"{sum(values) / len(values):.3f}" if values else "–"
