"""Ctrl-C while a command imports its modules, and while other processes work for it: one line, and exit code 130."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from aot.__main__ import VERBS
from aot.errors import OutOfMemory
from aot.evaluate.parallel import map_in_processes
from aot.system.cli import EXIT_INTERRUPTED
from aot.system.processes import is_alive
from tests.command_line import child_environment
from tests.waiting import wait_until

COMMANDS = [
    *(["-m", f"aot.{verb}"] for verb in VERBS),
    *(["-m", "aot", verb] for verb in VERBS),
    ["-maot.run"],
    ["bin/aot", "report"],
]

# Python imports this module before all others: Ctrl-C arrives when the module that a variable names is imported.
INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_IMPORT"] and "aot" in sys.modules:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
"""

# As pip writes it.
CONSOLE_SCRIPT = """
import sys
from aot.__main__ import console_script
sys.exit(console_script())
"""


@pytest.mark.parametrize("module", ["argparse", "aot.errors", "tempfile"])
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_ctrl_c_during_imports_prints_one_line(words: list[str], module: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "aot").write_text(CONSOLE_SCRIPT)
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    environment = child_environment(INTERRUPTED_IMPORT=module)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    process = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout, process.stderr) == (EXIT_INTERRUPTED, "", "\ninterrupted\n")


def test_programs_that_import_aot_keep_their_ctrl_c(tmp_path: Path) -> None:
    """`python -m program` imports the package `program`, and with it aot, before it starts."""
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__init__.py").write_text("import aot")
    (tmp_path / "program" / "__main__.py").write_text(
        "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    )
    command = [sys.executable, "-m", "program", "aot.run"]
    process = subprocess.run(command, cwd=tmp_path, env=child_environment(), capture_output=True, text=True, check=True)
    assert process.stdout == "True\n"


# A command whose processes write their ids into a file, when they start or when they have an item, and then wait.
PROGRAM = """
import os, signal, sys
from pathlib import Path

def wait(moment):
    if os.environ["MOMENT"] == moment:
        Path(f"{os.getpid()}.pid").touch()
        signal.pause()

def work(item):
    wait("working")

def score():
    from aot.evaluate.parallel import map_in_processes
    return len(list(map_in_processes(work, [1, 2, 3], 2)))

def check():
    from aot.runs.verify import Expected, FileChecker
    with FileChecker() as checker:
        return checker.examine(Path("a.h5"), Expected("a", "0", None), quick=True)

if __name__ == "__main__":
    from aot.system.cli import run_command
    sys.exit(run_command({"score": score, "check": check}[sys.argv[1]]))
elif __name__ == "__mp_main__":
    wait("starting")
"""


Program = Callable[[str, str, int], "subprocess.Popen[str]"]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Starts a function of PROGRAM; returns when the given number of its processes has reached the given moment."""
    (tmp_path / "program.py").write_text(PROGRAM)
    with ExitStack() as stack:

        def start(function: str, moment: str, num_processes: int) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "program.py", function],
                cwd=tmp_path,
                env=child_environment(MOMENT=moment),
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(kill_group, process.pid)
            wait_until(lambda: len(process_ids(tmp_path)) == num_processes)
            return process

        yield start


def kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def process_ids(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


@pytest.mark.parametrize(
    ("function", "moment", "num_processes"),
    [("score", "starting", 2), ("score", "working", 2), ("check", "starting", 1)],
)
def test_ctrl_c_ends_the_processes_of_a_command(
    program: Program,
    function: str,
    moment: str,
    num_processes: int,
    tmp_path: Path,
) -> None:
    process = program(function, moment, num_processes)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all processes of the command
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (EXIT_INTERRUPTED, "\ninterrupted\n")
    wait_until(lambda: not any(map(is_alive, process_ids(tmp_path))))


@pytest.mark.parametrize(("function", "num_processes"), [("score", 2), ("check", 1)])
def test_processes_of_a_command_never_receive_ctrl_c(
    program: Program, function: str, num_processes: int, tmp_path: Path
) -> None:
    program(function, "starting", num_processes)
    for pid in process_ids(tmp_path):
        status = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert int(status["SigBlk"], 16) & 1 << (signal.SIGINT - 1)


def test_processes_end_when_their_command_is_killed(program: Program, tmp_path: Path) -> None:
    process = program("score", "working", 2)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, process_ids(tmp_path))))


def kill_this_process(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_is_reported() -> None:
    with pytest.raises(OutOfMemory, match=r"one of 2 processes was killed.*use fewer --workers"):
        list(map_in_processes(kill_this_process, [1, 2], 2))
