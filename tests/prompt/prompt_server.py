"""Start `python -m aot.prompt` as a process and read the address that it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aot


@contextmanager
def prompt_server(folder: Path, *arguments: str) -> Iterator[str]:
    """Run the server in a working folder; yields the address with its token, then stops the server by Ctrl-C."""
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
