"""`python -m aot.run` as a process of its own, to be watched, stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType, TracebackType

from tests.launching.clips import Clips

# No test waits longer for a command to end by itself.
_MAX_SECONDS = 240


class Command:
    """A running command; what is left of it when its context ends is killed.

    Attributes:
        output: standard output and error of one that has ended.
    """

    def __init__(self, clips: Clips, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> None:
        self.output = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aot.run", *clips.arguments(*arguments)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Where the tests run in the background, it would be ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends(self) -> int:
        """Wait until it ends by itself; returns its exit code."""
        self.output, _ = self._process.communicate(timeout=_MAX_SECONDS)
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
