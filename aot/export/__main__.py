"""The command `python -m aot.export RUN --format FORMAT`: results in other formats.

docs/export.md describes each format and how coordinates are converted.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from aot.errors import AotError, ConfigError, printable
from aot.export.base import ExportedClip
from aot.export.lerobot.features import MASK_FORMS
from aot.export.lerobot.write_back import FORMAT as LEROBOT
from aot.export.lerobot.write_back import write_back
from aot.export.options import DEFAULT_FLOW_FILES, FLOW_FILES, ExportOptions, check_options, parse_size
from aot.export.run import FORMATS, create_exporter, select_clips
from aot.paths import RunPaths
from aot.runs.run_json import read_run_json
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
    parser.add_argument("--with-frames", action="store_true", help="coco, davis: write the frames too, as JPEG")
    parser.add_argument("--paired", action="store_true", help="cotracker: tracks and visibility as two .npy files")
    parser.add_argument(
        "--num-frames", type=int, metavar="N", help="resample to N frames at equal distances; default: the kept frames"
    )
    parser.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="positions in an image resized to this, px; default: of the source"
    )
    parser.add_argument(
        "--flow-files", nargs="+", choices=FLOW_FILES, help=f"flow: default: {' '.join(DEFAULT_FLOW_FILES)}"
    )
    parser.add_argument(
        "--dataset", type=Path, metavar="FOLDER", help="lerobot: the dataset to add to; default: that of the run"
    )
    parser.add_argument("--in-place", action="store_true", help="lerobot: replace the dataset, not write a copy")
    parser.add_argument("--masks", choices=MASK_FORMS, help="lerobot: form of the masks; default: video")
    parser.add_argument(
        "--points", type=int, metavar="N", help="lerobot: points per frame; default: those of the clip with the most"
    )
    options = parser.parse_args(arguments)
    if options.in_place and options.out:
        raise ConfigError(f"--in-place --out {options.out}: expected one of them; --in-place replaces the dataset")
    paths = RunPaths(options.run)
    out: Path = options.out or paths.export(options.format)
    clips, unfinished = select_clips(paths, options.clips)
    export_options = _export_options(options)
    check_options(options.format, export_options)
    if not options.in_place:
        check_output("--out", out)
    for clip_id in unfinished:
        print(f"{printable(clip_id)}: not finished, so not exported", file=sys.stderr)
    if options.format == LEROBOT:
        outcome = write_back(read_run_json(paths), clips, export_options, out)
        out, errors = outcome.folder, outcome.errors
        print(outcome.summary)
        for message in errors:
            print(message, file=sys.stderr)
        num_failed = len(unfinished) + len(errors)
    else:
        num_failed = len(unfinished) + _export_clips(options.format, clips, export_options, out)
    num_selected = len(clips) + len(unfinished)
    num_exported = num_selected - num_failed
    print(f"{num_exported} of {counted(num_selected, 'clip')} exported{f' to {out}' if num_exported else ''}")
    return EXIT_SOME_FAILED if num_failed else EXIT_DONE


def _export_clips(name: str, clips: Sequence[ExportedClip], options: ExportOptions, out: Path) -> int:
    """Write clip by clip; returns how many failed."""
    exporter = create_exporter(name, clips, options)
    num_failed = 0
    for clip in clips:
        try:
            print(exporter.export(clip, out))
        except AotError as error:
            print(error, file=sys.stderr)
            num_failed += 1
    return num_failed


def _export_options(options: Namespace) -> ExportOptions:
    return ExportOptions(
        stride=options.stride,
        with_video=not options.no_video,
        with_frames=options.with_frames,
        paired=options.paired,
        num_frames=options.num_frames,
        flow_files=None if options.flow_files is None else tuple(options.flow_files),
        size=None if options.size is None else parse_size(options.size),
        dataset=options.dataset,
        in_place=options.in_place,
        masks=options.masks,
        points=options.points,
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
