"""Score a sweep and write its page and table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aot.errors import ConfigError
from aot.paths import SweepPaths
from aot.sweep.answers import write_answers
from aot.sweep.page import write_page
from aot.sweep.runs import read_runs
from aot.sweep.scores import Interval, SweptClip, score_sweep, summarize_intervals
from aot.sweep.tables import clips_as_csv
from aot.system.files import write_text

DEFAULT_TOLERANCE = 0.02


@dataclass(frozen=True)
class SweepReport:
    """The results of a sweep, and where they were written."""

    paths: SweepPaths
    clips: Sequence[SweptClip]
    intervals: Sequence[Interval]
    answers: Sequence[str]
    """Sentences that name the largest interval within the tolerance, per group and measure, and for all measures."""


def write_sweep_report(
    root: Path, *, tolerance: float = DEFAULT_TOLERANCE, title: str | None = None, workers: int | None = None
) -> SweepReport:
    """Score the runs of a sweep, and write report/index.html and report/sweep.csv.

    Args:
        root: the sweep's folder.
        tolerance: maximum loss of a score.
        title: title of the page; None: the names of the dataset and of the folder.
        workers: number of processes; None: one per core.
    Raises:
        ConfigError: the folder is not a sweep, or no clip is finished in all of its runs.
        ResultError: a result cannot be read.
        WriteError: the folder cannot be written.
    """
    runs = read_runs(root)
    clips = score_sweep(runs, workers)
    intervals = summarize_intervals(clips)
    if not any(interval.num_clips for interval in intervals):
        raise ConfigError(
            f"{root}: no clip is finished in all of its {len(runs)} runs; resume the runs or wait for them to finish"
        )
    paths = SweepPaths(root)
    answers = write_answers(intervals, tolerance)
    title = title or f"{root.resolve().parent.name}: {root.resolve().name}"
    write_page(paths, clips, intervals, answers, title=title, tolerance=tolerance)
    write_text(paths.table, clips_as_csv(clips))
    return SweepReport(paths, clips, intervals, answers)
