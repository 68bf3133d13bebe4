"""End what works on a run: SLURM's tasks wherever they are, and commands on this machine. The same command goes on.

python -m aot.cancel RUN
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aot.errors import AotError, ConfigError
from aot.launching.slurm.squeue import ENDED, cancel_jobs, task_states
from aot.launching.slurm.submissions import read_submissions
from aot.paths import RunPaths
from aot.runs.fingerprint import Fingerprint
from aot.runs.history import History, close_cancelled, read_history
from aot.runs.run_json import read_run_json
from aot.system.cli import run_command
from aot.system.processes import host, is_alive

EXIT_DONE, EXIT_WRONG = 0, 2


def cancel_run(paths: RunPaths) -> list[str]:
    """End all that works on a run; returns what was ended, in words.

    Args:
        paths: of the run folder.
    Raises:
        ConfigError: it is no run folder, or SLURM does not answer.
    """
    contents = {
        clip_id: Fingerprint.from_json(record).digest for clip_id, record in read_run_json(paths)["clips"].items()
    }
    tasks = {task for each in read_submissions(paths) for task in each.tasks}
    states = task_states(tasks)
    if states is None:
        raise ConfigError("squeue does not answer, so nothing was cancelled; try again, or use scancel")
    living = {task for task, state in states.items() if state not in ENDED}
    ended = []
    if living:
        jobs = sorted({task.partition("_")[0] for task in living}, key=int)
        cancel_jobs(jobs)
        ended.append(f"{len(living)} SLURM tasks of {', '.join(jobs)}")
    history = read_history(paths, contents)
    # What was cancelled has not failed; it must not count as lost.
    close_cancelled(paths, history, living)
    return ended + [f"the command with process id {pid} on this machine" for pid in _stop_here(history)]


def _stop_here(history: History) -> list[int]:
    """Stop the commands on this machine whose workers have clips in hand; a number may be another process's by now."""
    stopped = set()
    for begun in history.open:
        if "task" in begun or begun["host"] != host() or not is_alive(begun["pid"]):
            continue
        words = _command_line(begun["pid"])
        command = None
        if "aot.launching.child" in words:
            command = int(words[-1])  # of the supervisor; see aot.launching.child
        elif "aot.run" in words:
            command = begun["pid"]
        if command is not None and command not in stopped:
            with suppress(ProcessLookupError, PermissionError):  # gone meanwhile, or another user's
                os.kill(command, signal.SIGTERM)
                stopped.add(command)
    return sorted(stopped)


def _command_line(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aot.cancel", description="End what works on a run.")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    given = parser.parse_args(arguments)
    try:
        ended = cancel_run(RunPaths(given.run))
    except AotError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    print(f"ended {' and '.join(ended)}; the command that began it goes on" if ended else "nobody is at work on it")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
