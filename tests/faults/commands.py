"""`python -m aot.run` as a child process that a test can watch, signal and kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from tests.launching.clips import Clips

# No test waits longer for a command to exit.
MAX_WAIT_SECONDS = 240


class Command:
    """A running command, as a context manager; a process that is still running at its exit is killed.

    Args:
        clips: the dataset that the command processes.
        arguments: overrides added to those of `clips`.
        environment: variables added to those of the test.

    Attributes:
        output: standard output and error, once the process has exited.
    """

    def __init__(self, clips: Clips, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aot.run", *clips.arguments(*arguments)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A background job of a shell inherits an ignored SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the process to exit; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it is still running after `MAX_WAIT_SECONDS`.
        """
        self.output, _ = self._process.communicate(timeout=MAX_WAIT_SECONDS)
        return self._process.returncode

    def is_running(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Command:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_running():
            self._process.kill()
        if self._process.stdout is not None and not self._process.stdout.closed:
            self.output, _ = self._process.communicate()
            print(self.output)
