"""Run the tests of a module in a copy of the repository, in a child process that has imported the libraries already."""

from __future__ import annotations

import importlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

# Importing them takes most of the time of a quick test. Not SAM 2, whose import changes the state of Hydra.
_LIBRARIES = "numpy torch torchvision cv2 av h5py scipy PIL.Image pydantic".split()
# Libraries that bring plugins of pytest are imported before it; their assertions are not ours.
_QUIET = ("-W", "ignore::pytest.PytestAssertRewriteWarning")
# A change that makes a loop endless is noticed as tests that take this much longer.
_MAX_TIMES_LONGER = 4
_MIN_LIMIT_SECONDS = 30.0


class Outcome(Enum):
    """What the tests of a module did."""

    PASSED = "passed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    NO_TESTS = "no tests"


_OUTCOMES: dict[int | None, Outcome] = {
    None: Outcome.TIMED_OUT, pytest.ExitCode.OK: Outcome.PASSED,
    pytest.ExitCode.NO_TESTS_COLLECTED: Outcome.NO_TESTS,
}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One run of tests."""

    outcome: Outcome
    seconds: float
    output: str


class Workplace:
    """A copy of the repository whose files are changed; one per process.

    Args:
        root: of the repository; the files that git tracks or does not ignore are copied.
        folder: where to put the copy; it must not exist.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.root = folder / "repository"
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (root / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, self.root / name)
        if (root.parent / "shared").is_dir():
            (self.root.parent / "shared").symlink_to((root.parent / "shared").resolve())

    def run(self, tests: tuple[str, ...], marks: str, limit_seconds: float | None = None) -> Result:
        """Run tests until the first failure.

        Args:
            tests: files and folders below the repository.
            marks: which of them, as pytest's `-m`.
            limit_seconds: after this time the tests are ended; None: no limit.
        """
        arguments = [*tests, "-x", "-q", "-m", marks, "-p", "no:cacheprovider", *_QUIET]
        log = self.root.parent / "output"
        start = time.monotonic()
        pid = os.fork()
        if pid == 0:
            _become_pytest(self.root, arguments, log)
        code = _wait(pid, limit_seconds)
        seconds = time.monotonic() - start
        output = log.read_text(errors="replace")
        # Tests that cannot be imported fail because of the change too, whatever pytest's exit code says.
        outcome = _OUTCOMES.get(code, Outcome.FAILED)
        return Result(outcome, seconds, output)


def limit(baseline_seconds: float) -> float:
    """Seconds after which the tests of a changed module are ended."""
    return max(_MIN_LIMIT_SECONDS, _MAX_TIMES_LONGER * baseline_seconds)


def import_libraries() -> None:
    """Import what the tests import, so that forked processes have it."""
    for name in _LIBRARIES:
        with suppress(ImportError):
            importlib.import_module(name)


def _become_pytest(root: Path, arguments: list[str], log: Path) -> None:
    """Run pytest in this process and exit with its code."""
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        os.setsid()
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        os.chdir(root)
        # A compiled file of the same size and second would hide a change.
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for name in [name for name in sys.modules if name.split(".")[0] in ("aot", "tests")]:
            del sys.modules[name]
        sys.path.insert(0, str(root))
        code = int(pytest.main(arguments))
    except BaseException:  # noqa: BLE001  (this process ends here, and its output is the report)
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, limit_seconds: float | None) -> int | None:
    """Exit code of a child, None if it was ended at the limit; the processes that it started are ended with it."""
    descriptor = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([descriptor], [], [], limit_seconds)
    finally:
        os.close(descriptor)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) if ready else None
