"""The command `python -m aot.export RUN --format davis|sa_v|coco|tapvid|npz|rerun`: results in other formats.

docs/export.md describes each format and how coordinates are converted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from aot.errors import AotError
from aot.export.run import FORMATS, create_exporter, select_clips
from aot.paths import RunPaths
from aot.system.cli import run_command
from aot.system.text import counted


def main(arguments: Sequence[str] | None = None) -> int:
    """Export a run; returns the exit code: 0 all clips written, 1 some failed, 2 nothing was started."""
    parser = argparse.ArgumentParser(
        prog="python -m aot.export", description="Write a run's finished clips in a format that other tools read."
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, help="the folder to write to; default: RUN/export/FORMAT")
    parser.add_argument("--clips", nargs="+", default=["*"], metavar="PATTERN", help="clip ids or patterns")
    parser.add_argument("--stride", type=int, default=4, help="sa_v: source frames between annotated frames")
    parser.add_argument("--no-video", action="store_true", help="tapvid, rerun: leave out the frames")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    out: Path = options.out or paths.export(options.format)
    try:
        clips, unfinished = select_clips(paths, options.clips)
        exporter = create_exporter(options.format, clips, stride=options.stride, with_video=not options.no_video)
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    num_failed = len(unfinished)
    for clip_id in unfinished:
        print(f"{clip_id}: not exported, because it is not finished", file=sys.stderr)
    for clip in clips:
        try:
            print(exporter.export(clip, out))
        except AotError as error:
            print(error, file=sys.stderr)
            num_failed += 1
    num_selected = len(clips) + len(unfinished)
    print(f"{num_selected - num_failed} of {counted(num_selected, 'clip')} exported to {out}")
    return 1 if num_failed else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
