"""Start `python -m aot.prompt` and read the address that it prints."""

from __future__ import annotations

import io
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import pytest
import uvicorn

import aot
from aot.prompt.__main__ import main


@contextmanager
def prompt_server(folder: Path, *arguments: str) -> Iterator[str]:
    """Run the server as a process in a working folder; yields the address with its token, then stops it by Ctrl-C."""
    environment = os.environ | {"PYTHONPATH": str(Path(aot.__file__).parents[1]), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "aot.prompt", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            output = ""
            for line in process.stdout:
                output += line
                if line.startswith("open "):
                    yield line.split()[1]
                    break
            else:
                raise AssertionError(f"the server ended: {output}")
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0


@contextmanager
def prompt_server_in_thread(folder: Path, *arguments: str) -> Iterator[str]:
    """The same server in a thread of this process, which starts in a fraction of the time.

    Until it has stopped, `folder` is the working folder of this process.
    """
    with started_in_thread(folder, *arguments) as lines:
        yield lines[-1].split()[1]


@contextmanager
def started_in_thread(folder: Path, *arguments: str) -> Iterator[list[str]]:
    """The lines that the command prints when it runs in a thread of this process; the last one has the address."""
    started: queue.Queue[uvicorn.Server | None] = queue.Queue()

    class Reporting(uvicorn.Server):
        def run(self, sockets: list[socket.socket] | None = None) -> None:
            started.put(self)
            super().run(sockets)

    def serve() -> None:
        try:
            main([*arguments, "--port", "0"])
        finally:
            started.put(None)

    output = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(uvicorn, "Server", Reporting)
        thread = threading.Thread(target=serve)
        with redirect_stdout(output):
            thread.start()
            server = started.get()
        assert server is not None, "the server did not start"
        try:
            yield output.getvalue().splitlines()
        finally:
            server.should_exit = True
            thread.join()
