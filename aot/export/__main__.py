"""The command `python -m aot.export RUN --format davis|sa_v|coco|tapvid|npz|rerun`: results in other formats.

docs/export.md describes each format and how coordinates are converted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from aot.errors import AotError, printable
from aot.export.run import FORMATS, create_exporter, select_clips
from aot.paths import RunPaths
from aot.system.cli import EXIT_DONE, EXIT_SOME_FAILED, add_run_argument, check_output, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.text import counted


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Export a run; returns the exit code: 0 all clips written, 1 some failed, 2 nothing was started."""
    parser = CommandParser(
        prog="python -m aot.export", description="Write a run's finished clips in a format that other tools read."
    )
    add_run_argument(parser)
    parser.add_argument("--format", choices=FORMATS, required=True, help="docs/export.md describes each format")
    parser.add_argument("--out", type=Path, help="folder to write to; default: RUN/export/FORMAT")
    parser.add_argument(
        "--clips",
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="clip ids or patterns, such as 'day1/*'; default: all clips",
    )
    parser.add_argument(
        "--stride", type=int, default=4, help="sa_v: source frames between annotated frames; default: %(default)s"
    )
    parser.add_argument("--no-video", action="store_true", help="tapvid, rerun: do not include the frames")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    out: Path = options.out or paths.export(options.format)
    clips, unfinished = select_clips(paths, options.clips)
    exporter = create_exporter(options.format, clips, stride=options.stride, with_video=not options.no_video)
    check_output("--out", out)
    num_failed = len(unfinished)
    for clip_id in unfinished:
        print(f"{printable(clip_id)}: not finished, so not exported", file=sys.stderr)
    for clip in clips:
        try:
            print(exporter.export(clip, out))
        except AotError as error:
            print(error, file=sys.stderr)
            num_failed += 1
    num_selected = len(clips) + len(unfinished)
    num_exported = num_selected - num_failed
    print(f"{num_exported} of {counted(num_selected, 'clip')} exported{f' to {out}' if num_exported else ''}")
    return EXIT_SOME_FAILED if num_failed else EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
