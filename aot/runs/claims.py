"""Which worker computes a clip at this moment: a small file per running clip, at which other workers look first.

Claims save work, they do not protect results: every result is written under a temporary name, so that two workers of
one clip are harmless. A claim of a worker that is not running any more, as its ledger shows, is replaced.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from aot.paths import RunPaths
from aot.runs.history import is_running
from aot.runs.liveness import LedgerWatch
from aot.system.lock_files import create_lock, read_lock
from aot.system.processes import host


class Claims:
    """The claims of the workers of one supervisor.

    Args:
        paths: of the run.
        clock: time in s.
    """

    def __init__(self, paths: RunPaths, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._ledgers = LedgerWatch(paths, clock)

    def take(self, clip_id: str, worker: str) -> bool:
        """Claim a clip for a worker; False if a living worker of another supervisor computes it.

        Args:
            clip_id: of the clip.
            worker: the name of the worker's ledger.
        """
        path = self._paths.claim(clip_id)
        own = {"clip_id": clip_id, "worker": worker, "host": host(), "pid": os.getpid()}
        with suppress(OSError):  # the worker reports that the run folder cannot be written, by its first event
            if not self._create(path, own):
                if self.is_claimed(clip_id):
                    return False
                path.write_text(json.dumps(own))
        return True

    def is_claimed(self, clip_id: str) -> bool:
        """Whether a living worker of another supervisor computes a clip."""
        holder = self.holder(clip_id)
        return holder is not None and not _is_own(holder) and self._is_living(holder)

    def release(self, clip_id: str) -> None:
        """Remove the claim of this supervisor."""
        holder = self.holder(clip_id)
        if holder is not None and _is_own(holder):
            with suppress(OSError):  # it is replaced as soon as this process has ended
                self._paths.claim(clip_id).unlink()

    def holder(self, clip_id: str) -> dict[str, Any] | None:
        """Who has claimed a clip: clip_id, worker, host, pid; None if nothing has, or if the claim cannot be read."""
        read = read_lock(self._paths.claim(clip_id)) or {}
        try:
            return {"clip_id": clip_id, **{key: read[key] for key in ("worker", "host", "pid")}}
        except KeyError:
            return None

    def _create(self, path: Path, own: dict[str, Any]) -> bool:
        """Create a claim that does not exist, and its folder; not the run folder, which may have been deleted."""
        try:
            return create_lock(path, own)
        except FileNotFoundError:
            self._paths.ledgers.mkdir(exist_ok=True)
            path.parent.mkdir(exist_ok=True)
            return create_lock(path, own)

    def _is_living(self, holder: dict[str, Any]) -> bool:
        self._ledgers.look()
        return is_running(self._paths, holder, self._ledgers)


def _is_own(holder: dict[str, Any]) -> bool:
    return (holder["host"], holder["pid"]) == (host(), os.getpid())
