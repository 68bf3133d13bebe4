"""The child process of a supervisor: processes the clips that the supervisor sends.

The results are computed by children that hold the models; other children, the drawers, are sent only clips whose result
is complete. The models, and torch with them, are loaded for the first clip without a result, so never in a drawer.

`python -m aot.launching.child DESCRIPTOR PARENT` is started by supervisors only.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from aot.launching.messages import Heartbeat, LedgerEvent, Progress, Ready, Start
from aot.launching.worker import BrokenProcess, Worker
from aot.system.cli import EXIT_INTERRUPTED
from aot.system.memory import cap_memory
from aot.system.processes import die_with

EXIT_BROKEN = 70
_HEARTBEAT_SECONDS = 1.0
# More frequent updates are unreadable, and would slow down clips of ten frames.
_PROGRESS_SECONDS = 0.2


def main(descriptor: int, parent: int) -> int:
    """Process clips until the supervisor has no more; returns the exit code.

    Args:
        descriptor: file descriptor of the socket to the supervisor.
        parent: process id of the supervisor.
    """
    faulthandler.enable()
    # Schedulers send SIGTERM to all processes of a task. The supervisor decides what it means for the clip, and
    # stops its children with SIGINT, which a command started in the background ignores by default.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with(parent)
    os.set_inheritable(descriptor, False)
    channel = _Channel(Connection(descriptor))
    worker = None
    try:
        start: Start = channel.receive()
        if start.memory_gb is not None:
            cap_memory(start.memory_gb)
        worker = Worker(
            start.run,
            name=start.worker,
            scheduler_task=start.scheduler_task,
            on_event=lambda event: channel.send(LedgerEvent(event)),
            leaves_drawing=True,
        )
        threading.Thread(target=channel.send_heartbeats, daemon=True, name="heartbeat").start()
        channel.send(Ready())
        while (assignment := channel.receive()) is not None:
            worker.run(assignment.task, channel.send_progress, assignment.following)
            channel.send(Ready())
    except BrokenProcess as broken:
        print(f"the worker process exits: {broken}", file=sys.stderr)
        return EXIT_BROKEN
    except (KeyboardInterrupt, EOFError):
        return EXIT_INTERRUPTED
    finally:
        if worker is not None:
            worker.close()
    return 0


class _Channel:
    """The socket to the supervisor; several threads may send.

    Args:
        connection: the child's end of the socket.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._last_progress = 0.0

    def receive(self) -> Any:
        """The next message of the supervisor: Start once, then one Assignment after another, then None."""
        return self._connection.recv()

    def send(self, message: Ready | Heartbeat | Progress | LedgerEvent) -> None:
        with self._lock:
            self._connection.send(message)

    def send_progress(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.send(Progress(stage, fraction))

    def send_heartbeats(self) -> None:
        while True:
            time.sleep(_HEARTBEAT_SECONDS)
            try:
                self.send(Heartbeat(time.process_time()))
            except OSError:  # the supervisor is gone, and with it the reader of all results of this process
                os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
