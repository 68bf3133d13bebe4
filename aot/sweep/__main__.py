"""The command `python -m aot.sweep SWEEP`: how quality changes with frame_interval or sample_fps.

The runs of a sweep are scored on the full-rate frames of their clips: against ground truth if there is any, otherwise
by their agreement with the finest run. docs/evaluation.md describes the scores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from aot.paths import SweepPaths
from aot.sweep.report import DEFAULT_TOLERANCE, write_sweep_report
from aot.sweep.runs import read_runs
from aot.sweep.tables import interval_table
from aot.system.cli import EXIT_DONE, add_workers_argument, check_output, output_console, prints_errors, run_command
from aot.system.command_parser import CommandParser


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of a sweep; returns the exit code: 0 done, 2 the folder cannot be scored."""
    parser = CommandParser(
        prog="python -m aot.sweep",
        description="Score a sweep over frame_interval or sample_fps: quality against time and memory. Writes "
        "report/index.html and report/sweep.csv into the sweep's folder.",
    )
    parser.add_argument(
        "sweep", type=Path, metavar="SWEEP", help="a sweep folder, such as outputs/videos/sweep-0123abcd"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        help="maximum loss of J&F and of δ_avg; default: %(default)s",
    )
    parser.add_argument("--title", help="title of the page")
    add_workers_argument(parser)
    options = parser.parse_args(arguments)
    if not options.tolerance >= 0:
        parser.error(f"--tolerance {options.tolerance}: expected 0 or more")
    read_runs(options.sweep)  # reports a path that is not a sweep folder
    check_output(None, SweepPaths(options.sweep).page.parent)
    report = write_sweep_report(
        options.sweep, tolerance=options.tolerance, title=options.title, workers=options.workers
    )
    output_console().print(interval_table(report.intervals))
    print("\n".join(report.answers))
    print(f"open {report.paths.page.absolute()}; scores per clip: {report.paths.table}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
