"""Select the clips of a run to export, and create the exporter of a format."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from contextlib import suppress

from aot.errors import AotError, ConfigError
from aot.export.atm import AtmExporter
from aot.export.base import ExportedClip, Exporter
from aot.export.coco import CocoExporter, category_name
from aot.export.cotracker import CotrackerExporter
from aot.export.davis import DavisExporter
from aot.export.flow import FlowExporter
from aot.export.general_flow import GeneralFlowExporter
from aot.export.im2flow2act import Im2Flow2ActExporter
from aot.export.lerobot.write_back import FORMAT as LEROBOT
from aot.export.npz import NpzExporter
from aot.export.options import DEFAULT_FLOW_FILES, ExportOptions, check_options
from aot.export.rerun import RerunExporter
from aot.export.sa_v import SaVExporter
from aot.export.shape_of_motion import ShapeOfMotionExporter
from aot.export.tap_vid import TapVidExporter
from aot.export.tracegen import TraceGenExporter
from aot.export.track2act import Track2ActExporter
from aot.export.wan_move import WanMoveExporter
from aot.paths import RunPaths
from aot.runs.run_json import read_run_json
from aot.system.nearest import suggestion
from aot.system.text import counted, first_names
from aot.writing.reader import read_object_names

_MAX_NAMED = 10
LEARNING_FORMATS = ("atm", "track2act", "im2flow2act", "general_flow", "tracegen", "wan_move", "shape_of_motion")
FORMATS = ("davis", "sa_v", "coco", "tapvid", "npz", "rerun", "cotracker", "flow", LEROBOT, *LEARNING_FORMATS)


def select_clips(paths: RunPaths, patterns: Sequence[str]) -> tuple[list[ExportedClip], list[str]]:
    """Select the clips of a run by id or pattern.

    Args:
        paths: paths of the run.
        patterns: clip ids, or patterns such as "day1/*".
    Returns:
        The finished clips, and the ids of the selected clips that are not finished.
    Raises:
        ConfigError: not a run folder, a pattern matches no clip, or no selected clip is finished.
    """
    clip_ids = list(read_run_json(paths)["clips"])
    matches = {p: {i for i in clip_ids if i == p or fnmatch.fnmatchcase(i, p)} for p in patterns}
    unmatched = [pattern for pattern, found in matches.items() if not found]
    if unmatched:
        has = f"it has {counted(len(clip_ids), 'clip')}: {first_names(sorted(clip_ids), at_most=_MAX_NAMED)}"
        raise ConfigError(
            "\n".join(
                f"--clips {pattern}: matches no clip of {paths.root}; {suggestion(pattern, clip_ids, otherwise=has)}"
                for pattern in unmatched
            )
        )
    selected = sorted(set().union(*matches.values()))
    unfinished = [clip_id for clip_id in selected if not paths.clip(clip_id).result.exists()]
    if len(unfinished) == len(selected):
        raise ConfigError(
            f"{paths.root}: no clip that matches {' '.join(patterns)} is finished; resume the run or wait for it to "
            f"finish"
        )
    return [ExportedClip(i, paths.clip(i).result) for i in selected if i not in set(unfinished)], unfinished


def create_exporter(name: str, clips: Sequence[ExportedClip], options: ExportOptions) -> Exporter:
    """Create the exporter of a format.

    Args:
        name: one of FORMATS, but not lerobot, which is written by `write_back`.
        clips: all clips to export; the names of their objects become the categories of COCO.
        options: of the formats.
    Raises:
        ConfigError: the format does not have an option, or needs a package that is not installed.
    """
    check_options(name, options)
    if name == "davis":
        return DavisExporter(options.with_frames)
    if name == "sa_v":
        return SaVExporter(options.stride)
    if name == "coco":
        return CocoExporter(_categories(clips), options.with_frames)
    if name == "tapvid":
        return TapVidExporter(with_video=options.with_video)
    if name == "npz":
        return NpzExporter()
    if name == "cotracker":
        return CotrackerExporter(options)
    if name == "flow":
        return FlowExporter(options.flow_files or DEFAULT_FLOW_FILES)
    if name in LEARNING_FORMATS:
        return _learning_exporter(name, clips, options)
    return RerunExporter(with_video=options.with_video)


def _learning_exporter(name: str, clips: Sequence[ExportedClip], options: ExportOptions) -> Exporter:
    if name == "atm":
        return AtmExporter(options)
    if name == "track2act":
        return Track2ActExporter()
    if name == "im2flow2act":
        return Im2Flow2ActExporter(clips)
    if name == "general_flow":
        return GeneralFlowExporter()
    if name == "tracegen":
        return TraceGenExporter(options)
    if name == "wan_move":
        return WanMoveExporter(options)
    return ShapeOfMotionExporter()


def _categories(clips: Sequence[ExportedClip]) -> dict[str, int]:
    """Number the object names of the run from 1."""
    names: set[str] = set()
    for clip in clips:
        with suppress(AotError):  # the export of a damaged clip reports the error
            names |= {category_name(name) for name in read_object_names(clip.path)}
    return {name: number for number, name in enumerate(sorted(names), start=1)}
