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
"""Class of a clip whose scheduler task was cancelled before the clip was done; the same command runs it again."""


_NEXT_STEPS = {
    CANCELLED: "run the same command again",
    "decode": "correct or replace the videos first, then run the same command again",
    "prompt": "correct the prompts first, then run the same command again",
    "dataset": "correct the files of the dataset first, then run the same command with 'retry=[dataset]'",
    "oom": "use a larger frame_interval or a machine with more memory, there with 'retry=[oom]'",
    "write": "check the disk first, then run the same command with 'retry=[write]'",
}


def next_step(kind: str) -> str:
    """What to do about the clips that failed with an error class: a mere second attempt does not repair an input.

    The same command processes a clip again whose video or prompts have changed.
    """
    return _NEXT_STEPS.get(kind, f"run the same command with 'retry=[{kind}]'")


def record_failure(
    task: ClipTask,
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
    """Record that a clip failed, and why, in its failure file and in a ledger.

    Args:
        task: the clip.
        attempts: all attempts, oldest first; may be empty.
        paths: of the clip.
        ledger: of the process that records the failure.
        frame_interval: the requested one, recorded if there was no attempt; otherwise that of the last attempt is.
        log: path of the log, recorded for the reader.
        kind, message: error class and message; None: those of the last attempt.
        stage, traceback: where it happened, if known.
    Raises:
        RunDeleted: the run folder was deleted.
        WriteError: the run folder cannot be written.
    """
    ledger.require_run()
    ledger.follow(task.after)
    last = attempts[-1] if attempts else None
    failure: dict[str, Any] = {
        "clip_id": task.clip.clip_id,
        "class": kind or (last and last.kind) or "unexpected",
        "stage": stage,
        "message": message or (last and last.error) or "",
        "frame_interval": last.rung.frame_interval if last else frame_interval,
        "attempts": [attempt.as_json() for attempt in attempts],
        "source": str(task.clip.source),
        "content": task.fingerprint.as_json(),
        "log": str(log),
        "traceback": traceback,
        "at": datetime.now(timezone.utc).isoformat(),
    }
    write_text(paths.failure, json.dumps(failure, indent=1))
    ledger.append("ended", state="failed", **{key: failure[key] for key in "clip_id class stage message log".split()})


def read_failure(paths: ClipPaths) -> dict[str, Any] | None:
    """The record of a clip's failure; None if there is none, or if it cannot be read: the clip is then tried again."""
    try:
        failure: dict[str, Any] = json.loads(paths.failure.read_text(encoding="utf-8"))
        return failure if isinstance(failure, dict) and isinstance(failure.get("class"), str) else None
    except (OSError, ValueError, RecursionError):
        return None
