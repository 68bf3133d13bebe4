"""Exit codes of commands that are interrupted, or whose output is no longer read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aot.system.cli import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED

ROOT = Path(__file__).parents[2]
COMMANDS = [
    *(path for path in sorted((ROOT / "aot").glob("*.py")) if "__main__" in path.read_text()),
    *sorted((ROOT / "aot").glob("*/__main__.py")),
]


@contextmanager
def broken_pipe() -> Iterator[int]:
    """A pipe whose reader is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", f"import sys; from aot.system.cli import run_command\n{code}"]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False, **options)


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_uses_run_command(path: Path) -> None:
    assert path.read_text().endswith('if __name__ == "__main__":\n    sys.exit(run_command(main))\n')


@pytest.mark.parametrize("words", [["aot.run", "--help"], ["aot.prompts", "schema"]], ids=lambda words: words[0])
def test_short_output_that_is_not_read_exits_141(words: list[str]) -> None:
    with broken_pipe() as unread:
        command = [sys.executable, "-m", *words]
        process = subprocess.run(command, cwd=ROOT, stdout=unread, stderr=subprocess.PIPE, text=True, check=False)
    assert (process.returncode, process.stderr) == (EXIT_BROKEN_PIPE, "")


def test_long_output_that_is_not_read_exits_141() -> None:
    with broken_pipe() as unread:
        process = run("sys.exit(run_command(lambda: print('x' * 10**6) or 0))", stdout=unread)
    assert (process.returncode, process.stderr) == (EXIT_BROKEN_PIPE, "")


def test_other_broken_pipes_are_reported() -> None:
    code = """
import os
def main():
    reading, writing = os.pipe()
    os.close(reading)
    os.write(writing, b"x")
sys.exit(run_command(main))
"""
    process = run(code, stdout=subprocess.DEVNULL)
    assert process.returncode == 1
    assert "BrokenPipeError" in process.stderr


def test_ctrl_c_exits_130() -> None:
    code = f"""
import os
def main():
    os.kill(os.getpid(), {signal.SIGINT.value})
    return 0
sys.exit(run_command(main))
"""
    process = run(code, stdout=subprocess.DEVNULL)
    assert (process.returncode, process.stderr) == (EXIT_INTERRUPTED, "\ninterrupted\n")
