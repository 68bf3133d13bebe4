"""Results of another run with the same settings, such as one of a sweep, are linked or copied instead of computed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from aot.errors import ConfigError
from aot.launching.plan import Plan
from aot.paths import RunPaths
from aot.runs.file_states import state_of
from aot.runs.ledger import Ledger, last_done
from aot.runs.run_json import read_run_json
from aot.runs.task import ClipTask, Work
from aot.system.files import replacing, write_errors
from aot.system.processes import host


def reuse_results(plan: Plan, tasks: Sequence[ClipTask]) -> dict[str, Path]:
    """Link the results that other runs of the same dataset, with the same configuration hash, have of some clips.

    Args:
        plan: of the run.
        tasks: what its clips need; clips that have a result, or attempts of their own, are left out.
    Returns:
        Clip id → the linked result.
    Raises:
        WriteError: the run folder cannot be written.
    """
    wanted = [
        task
        for task in tasks
        if task.work is Work.ALL and task.result_state is None and not (task.attempts or task.is_retried)
    ]
    reused: dict[str, Path] = {}
    ledger = Ledger(plan.paths, f"{host()}-{os.getpid()}")
    for other in _runs_with_the_same_settings(plan) if wanted else ():
        done = last_done(other, "content", "file_bytes", "is_partial", "summary")
        for task in wanted:
            clip_id = task.clip.clip_id
            record, source = done.get(clip_id), other.clip(clip_id).result
            if clip_id in reused or record is None or record["is_partial"] or not record["summary"]:
                continue
            state = state_of(source)
            if state is None or state[0] != record["file_bytes"] or not task.fingerprint.matches(record["content"]):
                continue
            _link(source, plan.paths.clip(clip_id).result)
            ledger.follow(task.after)
            # Its content is that of the other run, so that a name that differs is noticed.
            ledger.append(
                "taken up", clip_id=clip_id, origin=str(source), content=record["content"],
                file_bytes=record["file_bytes"], is_partial=False, summary=record["summary"],
            )  # fmt: skip
            reused[clip_id] = source
    return reused


def _runs_with_the_same_settings(plan: Plan) -> list[RunPaths]:
    """The other run folders of the same dataset in the same output.root whose results are computed in the same way."""
    own = plan.paths.root.absolute()
    dataset = own.parent.parent if own.parent.name.startswith("sweep-") else own.parent
    found = []
    for folder in sorted({dataset / own.name, *dataset.glob(f"sweep-*/{own.name}")} - {own}):
        try:
            if read_run_json(RunPaths(folder))["config_hash"] == plan.config.hash:
                found.append(RunPaths(folder))
        except ConfigError:  # there is none, or it is damaged
            continue
    return found


def _link(source: Path, target: Path) -> None:
    """Let a result have a second name, or copy it where the file system has no links."""
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            return
        except OSError:
            with replacing(target) as part:
                shutil.copyfile(source, part)
