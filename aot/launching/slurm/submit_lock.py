"""One submitter at a time: a file that only one command can create, held while it looks for living tasks and submits.

Without it, a second command with the same settings would not see the tasks that the first one is about to submit, and
submit all clips again.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.runs.ledger import SILENT_SECONDS
from aot.system.files import write_errors
from aot.system.lock_files import create_lock, read_lock, release_lock, remove_stale_lock
from aot.system.processes import host, is_alive

_CHECK_SECONDS = 1.0
# Submitting the tasks of 100,000 clips takes a minute.
_MAX_WAIT_SECONDS = 900.0


class Clock(Protocol):
    """The functions of `time`."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@contextmanager
def submitting(paths: RunPaths, clock: Clock) -> Iterator[Callable[[], None]]:
    """Hold the lock of a run; waits while another command holds it.

    A holder on this machine that is not running any more loses it at once; one on another machine when its file was not
    touched for SILENT_SECONDS while it was watched.

    Args:
        paths: of the run.
        clock: to wait with.
    Yields:
        A function that shows that the holder is alive; call it at least once a minute.
    Raises:
        ConfigError: another command has held the lock for _MAX_WAIT_SECONDS.
        WriteError: the run folder cannot be written.
    """
    path = paths.submit_lock
    own = {
        "user": _user(), "host": host(), "pid": os.getpid(), "token": uuid4().hex,
        "since": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    _acquire(path, own, clock)
    try:
        yield lambda: _touch(path)
    finally:
        release_lock(path, own)


def _acquire(path: Path, own: dict[str, Any], clock: Clock) -> None:
    started = clock.monotonic()
    seen: tuple[Any, float] | None = None
    """What the lock looked like when it last changed, and when that was."""
    is_announced = False
    while not _create(path, own):
        now = clock.monotonic()
        holder, state = read_lock(path), _state(path)
        if seen is None or seen[0] != state:
            seen = state, now
        if _is_over(holder, now - seen[1]):
            remove_stale_lock(path, holder)
            continue
        who = _describe(holder)
        if now - started > _MAX_WAIT_SECONDS:
            raise ConfigError(
                f"{who} has been submitting the tasks of this run for {_MAX_WAIT_SECONDS / 60:g} min; run the same "
                f"command again later, or delete {path} if that command does not run any more"
            )
        if not is_announced:
            print(f"waiting until {who} has submitted the tasks of this run ({path})", file=sys.stderr)
            is_announced = True
        clock.sleep(_CHECK_SECONDS)


def _create(path: Path, own: dict[str, Any]) -> bool:
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        return create_lock(path, own)


def _is_over(holder: dict[str, Any] | None, unchanged_seconds: float) -> bool:
    if holder is not None and holder.get("host") == host():
        return not is_alive(int(holder.get("pid", 0)))
    return unchanged_seconds >= SILENT_SECONDS


def _describe(holder: dict[str, Any] | None) -> str:
    if holder is None:
        return "another command"
    return (
        f"the command of {holder.get('user')} on {holder.get('host')} (process {holder.get('pid')}, since "
        f"{holder.get('since')})"
    )


def _state(path: Path) -> Any:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"user {os.getuid()}"
