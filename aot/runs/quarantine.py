"""Results that were damaged after they were written: how they are recognised, and where they are moved to.

A worker records the size and the SHA-256 of every result. The size is compared whenever a run is planned, because that
takes one system call per clip; `aot.verify` compares the SHA-256.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aot.errors import WriteError
from aot.paths import RunPaths
from aot.runs.file_states import FileStates
from aot.runs.ledger import COMPLETE, all_events, last_computed
from aot.system.os_errors import os_problem
from aot.system.text import counted, first_names


def find_damaged(
    paths: RunPaths, done: Mapping[str, dict[str, Any]], clip_ids: Sequence[str], states: FileStates | None = None
) -> set[str]:
    """Ids of the clips whose result no longer has the size that its worker recorded.

    Args:
        paths: of the run folder.
        done: `last_done(paths, "file_bytes")`; a run of version 0.1 has not recorded sizes.
        clip_ids: the clips to look at.
        states: of their files; None: they are looked at now.
    """
    states = states or FileStates(paths, clip_ids)
    suspected = {clip_id for clip_id in clip_ids if clip_id in done and _has_other_size(states, clip_id, done[clip_id])}
    if not suspected:
        return suspected
    # A worker may have been killed while it wrote new names into a file: it still has an earlier size.
    earlier = {
        (event["clip_id"], event["file_bytes"]) for kind in COMPLETE for event in all_events(paths, kind, "file_bytes")
    }
    suspected -= {clip_id for clip_id in suspected if (clip_id, (states.result(clip_id) or (0,))[0]) in earlier}
    started = last_computed(paths)
    return {clip_id for clip_id in suspected if not may_be_replaced(done[clip_id], started.get(clip_id))}


def may_be_replaced(done: dict[str, Any], started: dict[str, Any] | None) -> bool:
    """Whether a later attempt may have replaced the file that a "done" event describes.

    Args:
        done: the latest "done" event of a clip, with `at`.
        started: its event in `last_computed`; None: it has none.
    """
    return started is not None and bool(started["at"] > done["at"])


def quarantine(paths: RunPaths, clip_id: str) -> Path:
    """Move a broken file to quarantine/, so that its clip becomes pending; returns the new path.

    The clip's failure record is deleted, too: it may have been caused by the broken file, for example while drawing.

    Args:
        paths: of the run folder.
        clip_id: the clip whose file is broken.
    Raises:
        WriteError: the file cannot be moved.
    """
    source, target, number = paths.clip(clip_id).result, paths.quarantine(clip_id), 1
    while target.exists():
        number += 1
        target = paths.quarantine(f"{clip_id}.{number}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        paths.clip(clip_id).failure.unlink(missing_ok=True)
    except OSError as exc:
        raise WriteError(f"{source} cannot be moved to {target}: {os_problem(exc)}") from exc
    return target


def quarantine_damaged(paths: RunPaths, clip_ids: Sequence[str]) -> str:
    """Move the damaged results of some clips to quarantine/; returns the sentence that says so.

    Args:
        paths: of the run folder.
        clip_ids: at least one.
    Raises:
        WriteError: a file cannot be moved.
    """
    for clip_id in clip_ids:
        quarantine(paths, clip_id)
    one = len(clip_ids) == 1
    return (
        f"{counted(len(clip_ids), 'result')} ({first_names(clip_ids)}) {'has' if one else 'have'} changed in size "
        f"since {'it was' if one else 'they were'} written: moved to {paths.quarantine('').parent}, and computed again"
    )


def _has_other_size(states: FileStates, clip_id: str, done: dict[str, Any]) -> bool:
    if done["file_bytes"] is None:
        return False
    try:
        state = states.result(clip_id)
    except OSError:  # it cannot be read: its worker reports the error
        return False
    return state is not None and bool(state[0] != done["file_bytes"])
