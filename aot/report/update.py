"""Bring the report of a run up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from aot.errors import AotError
from aot.paths import ClipPaths, RunPaths
from aot.report.clip import is_reported, report_clip
from aot.report.index import write_report
from aot.runs.ledger import COMPLETE, last_events
from aot.runs.run_json import read_run_json
from aot.runs.summary import summary_rows
from aot.runs.timing import drawing_seconds


@dataclass(frozen=True)
class ReportUpdate:
    """The result of updating a report."""

    page: Path
    """`report/index.html` of the run."""
    num_clips: int
    num_written: int
    """Number of clips whose part was written."""
    errors: dict[str, AotError]
    """Clip id → why its part could not be written."""


def update_report(
    paths: RunPaths,
    *,
    rewrite: bool = False,
    progress: Callable[[list[ClipPaths]], Iterable[ClipPaths]] = iter,
) -> ReportUpdate:
    """Write the first page, and the parts of finished clips that are missing or out of date.

    Args:
        paths: paths of the run.
        rewrite: write the parts of all finished clips, also those that are up to date.
        progress: iterates over the clips to write, and may display progress.
    Raises:
        ConfigError: not a run folder.
        WriteError: the report cannot be written.
    """
    run = read_run_json(paths)
    rows = summary_rows(paths, sorted(run["clips"]), run.get("no_prompt", ()))
    finished = [clip for clip in (paths.clip(row["clip_id"]) for row in rows) if clip.result.exists()]
    outdated = [clip for clip in finished if rewrite or not is_reported(clip)]
    done = {clip_id: event["at"] for clip_id, event in last_events(paths, COMPLETE).items()}
    spent = drawing_seconds(paths, done)
    errors = {}
    for clip in progress(outdated):
        try:
            report_clip(clip, spent.get(clip.clip_id, {}))
        except AotError as error:
            errors[clip.clip_id] = error
    return ReportUpdate(write_report(paths, rows), len(rows), len(outdated) - len(errors), errors)
