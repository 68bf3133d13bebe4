"""The ledgers: what every worker did, one JSON line an event, appended and never changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from aot.paths import RunPaths, write_errors


class Ledger:
    """One worker's ledger. Each event is one write of one line, so that a kill cannot leave half of two."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, event: str, **details: Any) -> None:
        """Add an event with the time of now.

        Raises:
            WriteError: the run folder cannot be written, or the disk is full.
        """
        line = json.dumps({"event": event, "at": datetime.now(timezone.utc).isoformat(), **details})
        with write_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)


def read_events(paths: RunPaths) -> Iterator[dict[str, Any]]:
    """All events of a run in the order of their time; a line that a crash cut short is left out."""
    events = []
    for path in sorted(paths.ledgers.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "at" in event:
                events.append(event)
    yield from sorted(events, key=lambda event: str(event["at"]))


def last_done(paths: RunPaths) -> dict[str, dict[str, Any]]:
    """The latest "done" event of every clip."""
    return {event["clip_id"]: event for event in read_events(paths) if event["event"] == "done"}
