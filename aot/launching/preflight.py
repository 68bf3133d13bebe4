"""Checks of a run that look at the disk, made before anything starts: its folder can be written, its clips be read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from aot.config import RunConfig
from aot.decoding import open_source
from aot.decoding.size import ClipSize, num_shown_frames, read_size
from aot.errors import ConfigError, DecodeError
from aot.launching.plan import Plan, make_plan
from aot.system.output_folder import find_obstacle, unusable_output
from aot.system.text import counted, first_names
from aot.types import Clip

# A header that shows no frame is not trusted, and then all packets of the file are read, which takes seconds for a long
# video: in a large run of which nothing can be read, every clip reports it by itself.
_MAX_CHECKED = 50


def plan_run(config: RunConfig, root: Path) -> Plan:
    """Plan a run and check that it can start.

    Args:
        config: checked.
        root: the run folder.
    Raises:
        ConfigError, DatasetError: as `make_plan`; also if the output folder cannot be written, or no clip be read.
    """
    # An existing run folder that cannot be written may be that of a finished run, whose table can be printed.
    if not os.path.lexists(root) and (obstacle := find_obstacle(root)):
        raise unusable_output("output.root", config.output.root, obstacle)
    plan = make_plan(config, root)
    _refuse_unreadable_clips(plan)
    return plan


def _refuse_unreadable_clips(plan: Plan) -> None:
    """Raise if no clip can be read; one that can be read is enough, because a clip's failure must not stop the others.

    Of many clips, the first ones are checked; if none of them can be read, the others are tried by the run.

    Raises:
        ConfigError: says why the first clip cannot be read.
    """
    clips = plan.shard_clips if plan.config.shard else plan.clips
    if any(plan.paths.clip(clip.clip_id).result.exists() for clip in clips):
        return
    problems = _problems(clips[:_MAX_CHECKED])
    if problems and len(problems) == len(clips):
        names = first_names(clip.clip_id for clip in clips)
        none = f"none of the {counted(len(clips), 'clip')} ({names}) can be read; the first one: "
        raise ConfigError(f"{'' if len(clips) == 1 else none}{problems[0]}")


def _problems(clips: Sequence[Clip]) -> list[str]:
    """Why clips cannot be read, up to the first one that can be: usually one file is opened, in milliseconds."""
    problems: list[str] = []
    for clip in clips:
        problem = _problem(clip)
        if problem is None:
            break
        problems.append(problem)
    return problems


def _problem(clip: Clip) -> str | None:
    """Why a clip cannot be read; None if it can, according to its header."""
    if _is_readable(clip):
        return None
    # Headers are approximate, and say less: the worker's own check decides, with its message.
    try:
        open_source(clip).close()
    except DecodeError as error:
        return str(error)
    except OSError:  # a folder that cannot be listed: the worker reports it
        return None
    return None


def _is_readable(clip: Clip) -> bool:
    """Whether the header shows frames in the time range of the clip."""
    try:
        size: ClipSize = read_size(clip.source, clip.pattern, clip.stream)
    except (DecodeError, OSError):
        return False
    return num_shown_frames(size, clip) >= 1
