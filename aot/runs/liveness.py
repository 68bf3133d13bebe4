"""Which workers are alive, found out by watching their ledgers: the clocks of different machines are not compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from aot.paths import RunPaths
from aot.runs.ledger import SILENT_SECONDS, TOUCH_SECONDS, ledger_states


@dataclass(frozen=True)
class _Seen:
    state: tuple[int, int]
    """Size in bytes and modification time in ns of the ledger."""
    since: float
    """When this state was first seen, in s."""
    has_changed: bool
    """Whether another state was seen before."""


class LedgerWatch:
    """Watches the ledgers of a run, which supervisors touch while their workers are alive.

    Args:
        paths: of the run.
        clock: time in s.
    """

    def __init__(self, paths: RunPaths, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._looked_at = -TOUCH_SECONDS

    def look(self, *, now: bool = False) -> None:
        """Look at all ledgers, at most as often as they are touched.

        Args:
            now: also if the last look was just before.
        """
        at = self._clock()
        if not now and at - self._looked_at < TOUCH_SECONDS:
            return
        self._looked_at = at
        for worker, state in ledger_states(self._paths).items():
            seen = self._seen.get(worker)
            if seen is None or seen.state != state:
                self._seen[worker] = _Seen(state, at, has_changed=seen is not None)

    @property
    def workers(self) -> Collection[str]:
        """The workers that have a ledger."""
        return self._seen.keys()

    def is_silent(self, worker: str) -> bool | None:
        """Whether a ledger has not changed for SILENT_SECONDS; None if it was not watched for so long."""
        seen = self._seen.get(worker)
        if seen is None:
            return None
        if self._looked_at - seen.since >= SILENT_SECONDS:
            return True
        return False if seen.has_changed else None
