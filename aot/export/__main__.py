"""Results in the formats of others: `python -m aot.export RUN --format davis|sa_v|coco|tapvid|npz|rerun`.

docs/export.md says what each format holds and how coordinates are converted.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aot.errors import AotError, ConfigError
from aot.export.base import ExportedClip, Exporter
from aot.export.coco import CocoExporter, category_name
from aot.export.davis import DavisExporter
from aot.export.npz import NpzExporter
from aot.export.rerun import RerunExporter
from aot.export.sa_v import SaVExporter
from aot.export.tap_vid import TapVidExporter
from aot.launching.plan import read_run_json
from aot.paths import RunPaths
from aot.system.cli import run_command
from aot.writing.reader import read_object_names

FORMATS = ("davis", "sa_v", "coco", "tapvid", "npz", "rerun")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aot.export", description="Write a run's finished clips in a format that other tools read."
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, help="the folder to write to; RUN/export/FORMAT if not given")
    parser.add_argument("--clips", nargs="+", default=["*"], metavar="PATTERN", help="clip ids or patterns")
    parser.add_argument(
        "--stride", type=int, default=4, help="sa_v: source frames from one annotated frame to the next"
    )
    parser.add_argument("--no-video", action="store_true", help="tapvid, rerun: leave the frames out")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    out: Path = options.out or paths.export(options.format)
    try:
        if options.stride < 1:
            raise ConfigError(f"--stride {options.stride}: expected 1 or more")
        clips, unfinished = _chosen(paths, options.clips)
        exporter = _exporter(options, clips)
    except AotError as error:
        print(error, file=sys.stderr)
        return 2
    num_failed = len(unfinished)
    for clip_id in unfinished:
        print(f"{clip_id}: is not finished; there is nothing to export", file=sys.stderr)
    for clip in clips:
        try:
            print(exporter.export(clip, out))
        except AotError as error:
            print(error, file=sys.stderr)
            num_failed += 1
    num_chosen = len(clips) + len(unfinished)
    print(f"{num_chosen - num_failed} of {num_chosen} clips in {out}")
    return 1 if num_failed else 0


def _chosen(paths: RunPaths, patterns: Sequence[str]) -> tuple[list[ExportedClip], list[str]]:
    """The clips that match, and the ids of those among them that are not finished."""
    listed = list(read_run_json(paths)["clips"])
    matches = {p: {i for i in listed if i == p or fnmatch.fnmatchcase(i, p)} for p in patterns}
    unknown = [pattern for pattern, found in matches.items() if not found]
    if unknown:
        raise ConfigError(f"--clips {' '.join(unknown)}: matches none of the {len(listed)} clips of {paths.root}")
    chosen = sorted(set().union(*matches.values()))
    unfinished = [clip_id for clip_id in chosen if not paths.clip(clip_id).result.exists()]
    if len(unfinished) == len(chosen):
        raise ConfigError(f"{paths.root}: none of its {len(listed)} clips is finished and matches {' '.join(patterns)}")
    return [ExportedClip(i, paths.clip(i).result) for i in chosen if i not in set(unfinished)], unfinished


def _exporter(options: argparse.Namespace, clips: Sequence[ExportedClip]) -> Exporter:
    if options.format == "davis":
        return DavisExporter()
    if options.format == "sa_v":
        return SaVExporter(options.stride)
    if options.format == "coco":
        return CocoExporter(_categories(clips))
    if options.format == "tapvid":
        return TapVidExporter(with_video=not options.no_video)
    if options.format == "npz":
        return NpzExporter()
    return RerunExporter(with_video=not options.no_video)


def _categories(clips: Sequence[ExportedClip]) -> dict[str, int]:
    """A number for every object name of the run."""
    names: set[str] = set()
    for clip in clips:
        with suppress(AotError):  # the clip's own export will say that its file is damaged
            names |= {category_name(name) for name in read_object_names(clip.path)}
    return {name: number for number, name in enumerate(sorted(names), start=1)}


if __name__ == "__main__":
    sys.exit(run_command(main))
