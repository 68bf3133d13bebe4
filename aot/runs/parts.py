"""Part files that workers have left in a run folder because they were killed, and deleting them."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from aot.paths import RunPaths
from aot.runs.ledger import all_events
from aot.runs.liveness import LedgerWatch
from aot.system.files import remove_parts
from aot.system.processes import host, is_alive

_DAY_SECONDS = 24 * 3600


class PartSweeper:
    """Deletes the part files of dead workers, never those of a living one, which would then fail.

    A worker of this machine is dead if its process is. One of another machine is dead if its ledger does not change
    any more while it is watched. Without watching, its part files are deleted a day after the last sign of life.

    Args:
        paths: of the run.
        clock: time in s.
    """

    def __init__(self, paths: RunPaths, clock: Callable[[], float] = time.monotonic) -> None:
        self._paths = paths
        self._ledgers = LedgerWatch(paths, clock)
        self._ledgers.look()

    def watch(self) -> None:
        """Look at the ledgers, if the last look was some time ago."""
        self._ledgers.look()

    def sweep(self) -> int:
        """Delete the part files of workers that are known to be dead; returns how many were deleted.

        Raises:
            WriteError: the run folder cannot be written.
        """
        self._ledgers.look(now=True)
        return remove_parts(self._paths.root, self._is_dead)

    def sweep_other_machines(self) -> int:
        """The same, if workers of other machines have been part of the run; otherwise, nothing is searched."""
        has_others = any(not _is_of_this_machine(worker) for worker in self._ledgers.workers)
        return self.sweep() if has_others else 0

    def _is_dead(self, part: Path, machine: str, pid: int) -> bool:
        if machine == host():
            return not is_alive(pid)
        workers = self._workers.get((machine, pid), set())
        if workers and all(
            self._ledgers.is_silent(worker) or worker not in self._ledgers.workers for worker in workers
        ):
            return True
        return all(_is_old(path) for path in (part, *map(self._paths.ledger, workers)))

    @cached_property
    def _workers(self) -> dict[tuple[str, int], set[str]]:
        """Machine and process id → names of the workers that the process has been."""
        found = defaultdict(set)
        for event in all_events(self._paths, "started", "host", "pid", "worker"):
            found[event["host"], event["pid"]].add(event["worker"])
        return found


def _is_of_this_machine(worker: str) -> bool:
    """Whether a worker runs here, by its name, which may begin with the scheduler's task."""
    return re.sub(r"^\d+(_\d+)?\.", "", worker).startswith(f"{host()}-")


def _is_old(path: Path) -> bool:
    """Whether a file has not been written to for a day; the clocks of file servers are less wrong than that."""
    try:
        return time.time() - path.stat().st_mtime > _DAY_SECONDS
    except OSError:
        return False
