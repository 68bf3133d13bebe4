"""The command `python -m aot.report RUN`: bring RUN/report/index.html up to date.

`aot.run` writes the report when it ends; this command adds the clips that have finished since then.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.progress import track

from aot.errors import printable
from aot.paths import ClipPaths, RunPaths
from aot.report.update import update_report
from aot.runs.run_json import read_run_json
from aot.system.cli import EXIT_DONE, EXIT_SOME_FAILED, add_run_argument, check_output, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.text import counted


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Update a report; returns the exit code: 0 done, 1 some clips could not be reported, 2 nothing was started."""
    parser = CommandParser(
        prog="python -m aot.report",
        description="Write the report of a run: a table of its clips, failures and how to retry them, and one page "
        "per clip with video and charts. The report opens from disk, without a server.",
    )
    add_run_argument(parser)
    parser.add_argument("--all", action="store_true", help="rewrite the pages of all clips, not only outdated ones")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    read_run_json(paths)  # reports a path that is not a run folder
    check_output(None, paths.report)
    update = update_report(paths, rewrite=options.all, progress=_track)
    for clip_id, error in update.errors.items():
        print(f"{printable(clip_id)}: {error}", file=sys.stderr)
    print(f"{counted(update.num_clips, 'clip')}, {update.num_written} updated: open {update.page.absolute()}")
    return EXIT_SOME_FAILED if update.errors else EXIT_DONE


def _track(clips: list[ClipPaths]) -> Iterable[ClipPaths]:
    console = Console(stderr=True)
    return track(clips, "clips", console=console, disable=not (clips and console.is_terminal))


if __name__ == "__main__":
    sys.exit(run_command(main))
