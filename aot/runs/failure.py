"""The record of a clip that failed: `failures/<clip_id>.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aot.paths import ClipPaths
from aot.retry import Attempt
from aot.runs.ledger import Ledger
from aot.runs.task import ClipTask
from aot.system.files import write_text

CANCELLED = "cancelled"
"""The class of what its task did not come to, because someone ended the task; the same command takes it again."""


def record_failure(
    todo: ClipTask,
    attempts: Sequence[Attempt],
    paths: ClipPaths,
    ledger: Ledger,
    *,
    frame_interval: int,
    log: Path,
    kind: str | None = None,
    message: str | None = None,
    stage: str | None = None,
    traceback: str = "",
) -> None:
    """Write down that a clip failed, and why.

    Args:
        todo: the clip.
        attempts: all that were made, oldest first; there may be none.
        paths: of the clip.
        ledger: of whoever notes it.
        frame_interval: the one asked for; the last attempt's is recorded where there is one.
        log: where to read on.
        kind, message: class and words; None: those of the last attempt.
        stage, traceback: where it happened, if that is known.
    Raises:
        WriteError: the run folder cannot be written.
    """
    last = attempts[-1] if attempts else None
    failure: dict[str, Any] = {
        "clip_id": todo.clip.clip_id,
        "class": kind or (last and last.kind) or "unexpected",
        "stage": stage,
        "message": message or (last and last.error) or "",
        "frame_interval": last.rung.frame_interval if last else frame_interval,
        "attempts": [attempt.as_json() for attempt in attempts],
        "source": str(todo.clip.source),
        "content": todo.content.as_json(),
        "log": str(log),
        "traceback": traceback,
        "at": datetime.now(timezone.utc).isoformat(),
    }
    write_text(paths.failure, json.dumps(failure, indent=1))
    ledger.append("ended", state="failed", **{key: failure[key] for key in "clip_id class stage message log".split()})


def read_failure(paths: ClipPaths) -> dict[str, Any] | None:
    """The record of a clip's failure; None without one (or with one that cannot be read: it is then tried again)."""
    try:
        failure: dict[str, Any] = json.loads(paths.failure.read_text(encoding="utf-8"))
        return failure if isinstance(failure, dict) and isinstance(failure.get("class"), str) else None
    except (OSError, ValueError, RecursionError):
        return None
