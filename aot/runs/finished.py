"""Whether anything has changed since the table of a large finished run was written: else, it is not made again."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aot.errors import WriteError
from aot.paths import RunPaths
from aot.runs.file_states import state_of
from aot.runs.ledger import ledger_states
from aot.runs.ledger_files import ended_names
from aot.runs.summary import COLUMNS
from aot.runs.timing import WorkerTime, WorkerTimes
from aot.system.cli import version
from aot.system.files import write_text

# Of fewer clips, the table is made within a second.
MIN_CLIPS = 1000
_TEXTS = ("clip_id", "state", "decoder", "decoder_fallback", "error", "notes", "worker")


def record_finished(paths: RunPaths, clip_ids: Sequence[str], times: WorkerTimes, *, has_report: bool) -> None:
    """Record that the files of a run show its present state.

    Args:
        paths: of the run.
        clip_ids: of the table.
        times: of its workers.
        has_report: whether the report was written, too.
    """
    if len(clip_ids) < MIN_CLIPS:
        return
    workers = {name: asdict(time) for name, time in times.by_worker.items()}
    record = {"state": _state(paths, clip_ids, has_report=has_report), "workers": workers}
    with suppress(WriteError):  # the table is made again next time
        write_text(paths.finished, json.dumps(record))


def read_finished(
    paths: RunPaths, clip_ids: Sequence[str], *, has_report: bool
) -> tuple[list[dict[str, Any]], WorkerTimes] | None:
    """The rows of the table and the times of the workers; None if the run has changed since they were written.

    Args:
        paths, clip_ids, has_report: as for `record_finished`.
    """
    if len(clip_ids) < MIN_CLIPS:
        return None
    try:
        record = json.loads(paths.finished.read_text(encoding="utf-8"))
        if record["state"] != _state(paths, clip_ids, has_report=has_report):
            return None
        with paths.summary.open(encoding="utf-8", newline="") as file:
            rows = [{name: _value(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
        times = WorkerTimes()
        for name, time in record["workers"].items():
            times.absorb(name, WorkerTime(**time))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (rows, times) if [*rows[0]] == COLUMNS else None


def _state(paths: RunPaths, clip_ids: Sequence[str], *, has_report: bool) -> str:
    files: list[Path] = [paths.summary, paths.index, *([paths.report / "index.html"] if has_report else [])]
    states = [state_of(path) for path in files]
    if None in states:
        return ""
    described = (version(), states, sorted(ledger_states(paths).items()), sorted(ended_names(paths)), list(clip_ids))
    return hashlib.sha256(repr(described).encode()).hexdigest()


def _value(name: str, text: str) -> Any:
    if name in _TEXTS or not text:
        return text
    return int(text) if text.lstrip("-").isdecimal() else float(text)
