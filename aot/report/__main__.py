"""The report of a run: `python -m aot.report RUN` writes RUN/report/index.html, which opens from the disk.

`aot.run` writes it at its end; this makes it anew, with the parts that are missing or out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from aot.errors import AotError
from aot.launching.plan import read_run_json
from aot.paths import RunPaths
from aot.report.clip import is_reported, report_clip
from aot.report.index import write_report
from aot.runs.summary import summary_rows
from aot.system.cli import run_command

EXIT_DONE, EXIT_SOME_FAILED, EXIT_WRONG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m aot.report",
        description="Write a run's report: a table of its clips, what failed and how to retry it, a page a clip with "
        "video and charts. It is a folder that opens from the disk; nothing has to be served.",
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd")
    parser.add_argument("--all", action="store_true", help="make the clips' parts anew that are there already, too")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    console = Console(stderr=True)
    try:
        rows = summary_rows(paths, sorted(read_run_json(paths)["clips"]))
        clips = [paths.clip(row["clip_id"]) for row in rows if paths.clip(row["clip_id"]).result.exists()]
        missing = [clip for clip in clips if options.all or not is_reported(clip)]
        problems = []
        for clip in track(missing, "clips", console=console, disable=not (missing and console.is_terminal)):
            try:
                report_clip(clip)
            except AotError as error:
                problems.append(f"{clip.clip_id}: {error}")
        page = write_report(paths, rows)
    except AotError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(rows)} clips, {len(missing) - len(problems)} of them taken in anew: open {page.absolute()}")
    return EXIT_SOME_FAILED if problems else EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
