"""The record of a clip that failed: `failures/<clip_id>.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aot.launching.content import Content
from aot.launching.ledger import Ledger
from aot.paths import ClipPaths, write_text
from aot.retry import Attempt
from aot.types import Clip

CANCELLED = "cancelled"
"""The class of what its task did not come to, because someone ended the task; the same command takes it again."""


@dataclass(frozen=True)
class Failure:
    """Why a clip has no result, or only a part of what was asked for."""

    clip: Clip
    content: Content
    kind: str
    """The error's class, in one word."""
    message: str
    stage: str | None
    frame_interval: int
    attempts: Sequence[Attempt]
    log: Path
    """Where to read on."""
    traceback: str = ""

    def record(self, paths: ClipPaths, ledger: Ledger) -> dict[str, Any]:
        """Write it down; returns what was written.

        Raises:
            WriteError: the run folder cannot be written.
        """
        written = {
            "clip_id": self.clip.clip_id,
            "class": self.kind,
            "stage": self.stage,
            "message": self.message,
            "frame_interval": self.frame_interval,
            "attempts": [attempt.as_json() for attempt in self.attempts],
            "source": str(self.clip.source),
            "content": self.content.as_json(),
            "log": str(self.log),
            "traceback": self.traceback,
            "at": datetime.now(timezone.utc).isoformat(),
        }
        write_text(paths.failure, json.dumps(written, indent=1))
        ledger.append(
            "ended",
            clip_id=self.clip.clip_id,
            state="failed",
            log=str(self.log),
            **{key: written[key] for key in ("class", "stage", "message")},
        )
        return written


def read_failure(paths: ClipPaths) -> dict[str, Any] | None:
    """The record of a clip's failure; None without one (or with one that cannot be read: it is then tried again)."""
    try:
        failure: dict[str, Any] = json.loads(paths.failure.read_text(encoding="utf-8"))
        return failure if isinstance(failure, dict) and {"class", "at"} <= failure.keys() else None
    except (OSError, ValueError):
        return None
