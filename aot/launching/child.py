"""The child process of a supervisor: holds the models and runs the clips that it is handed.

`python -m aot.launching.child DESCRIPTOR PARENT` is for supervisors alone.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from aot.launching.messages import Beat, Noted, Progress, Ready, Start
from aot.launching.worker import BrokenProcess, Worker
from aot.system.cli import EXIT_INTERRUPTED
from aot.system.memory import cap_memory

EXIT_BROKEN = 70
_BEAT_SECONDS = 1.0
# More often nobody could read it, and clips of ten frames would be slowed down.
_PROGRESS_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> int:
    """Serve the supervisor at the other end of a socket until it has no more clips; returns the exit code."""
    faulthandler.enable()
    # Schedulers send it to all processes of a task; what it means for the clip is for the supervisor to say, by SIGINT,
    # which a command started in the background would ignore.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _die_with(parent)
    os.set_inheritable(descriptor, False)
    channel = _Channel(Connection(descriptor))
    worker = None
    try:
        start: Start = channel.receive()
        if start.memory_gb is not None:
            cap_memory(start.memory_gb)
        worker = Worker(
            start.run, name=start.worker, task=start.task, on_event=lambda event: channel.send(Noted(event))
        )
        threading.Thread(target=channel.beat, daemon=True, name="beat").start()
        channel.send(Ready())
        while (todo := channel.receive()) is not None:
            worker.run(todo, channel.progress)
            channel.send(Ready())
    except BrokenProcess as broken:
        print(f"this process ends: {broken}", file=sys.stderr)
        return EXIT_BROKEN
    except (KeyboardInterrupt, EOFError):
        return EXIT_INTERRUPTED
    finally:
        if worker is not None:
            worker.close()
    return 0


class _Channel:
    """The socket to the supervisor; several threads may send."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._last_progress = 0.0

    def receive(self) -> Any:
        """What the supervisor sends next: Start once, then ClipTask after ClipTask, then None."""
        return self._connection.recv()

    def send(self, message: Ready | Beat | Progress | Noted) -> None:
        with self._lock:
            self._connection.send(message)

    def progress(self, stage: str, share: float) -> None:
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_SECONDS:
            self._last_progress = now
            self.send(Progress(stage, share))

    def beat(self) -> None:
        while True:
            time.sleep(_BEAT_SECONDS)
            try:
                self.send(Beat(time.process_time()))
            except OSError:  # nobody listens: nobody would learn what comes of the clip
                os._exit(EXIT_INTERRUPTED)


def _die_with(parent: int) -> None:
    """Let the kernel end this process when its supervisor dies, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was faster
        os._exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
