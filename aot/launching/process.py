"""Worker processes: starting one, exchanging messages with it, and ending it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from aot.launching.slots import Slot

# How long to wait for a process that has been killed.
_KILLED_SECONDS = 10.0


class WorkerProcess:
    """A running `aot.launching.child` and the connection to it.

    Args:
        process: leader of its own session.
        connection: our end of its socket.
    """

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection) -> None:
        self._process = process
        self.connection = connection

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Of the process, once `end` has returned; negative: the signal that killed it; None: it still runs."""
        return self._process.returncode

    def send(self, message: Any) -> None:
        """Send a message; nothing happens if the process is dead, which `receive` reports."""
        with suppress(OSError):
            self.connection.send(message)

    def receive(self) -> Any:
        """The next message of the process.

        Raises:
            EOFError: the process is dead.
        """
        try:
            return self.connection.recv()
        except OSError as exc:
            raise EOFError from exc

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and to those it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def end(self, timeout_seconds: float) -> None:
        """Wait for the process to end, kill it after the timeout, and close the connection."""
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # it hangs in a call to a file server: the kernel ends it later
                self._process.wait(_KILLED_SECONDS)
        self.connection.close()


def start_process(slot: Slot, log: Path) -> WorkerProcess:
    """Start a process, which waits for the `Start` message.

    Args:
        slot: its resources.
        log: the file to which its output is appended; the folder is created.
    """
    log.parent.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    with log.open("ab") as output:
        # A new session, so that Ctrl-C reaches only the supervisor, which then ends its children cleanly.
        process = subprocess.Popen(  # noqa: S603 (our own module, by our own interpreter)
            [sys.executable, "-m", "aot.launching.child", str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=slot.environment(),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    theirs.close()
    return WorkerProcess(process, Connection(ours.detach()))


def wait_for_messages(processes: Sequence[WorkerProcess], timeout_seconds: float) -> list[WorkerProcess]:
    """The processes from which `receive` returns or raises immediately; empty if there is none until the timeout."""
    ready = wait([process.connection for process in processes], timeout=timeout_seconds)
    return [process for process in processes if process.connection in ready]
