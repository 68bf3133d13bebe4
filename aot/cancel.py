"""Cancel a run: its SLURM tasks on all nodes, and its commands on this machine.

python -m aot.cancel RUN

Finished clips stay; run the command that started the run again to resume it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from aot.errors import ConfigError
from aot.launching.slurm.squeue import ENDED, cancel_jobs, task_states
from aot.launching.slurm.submissions import read_submissions
from aot.paths import RunPaths
from aot.runs.fingerprint import Fingerprint
from aot.runs.history import History, close_cancelled, read_history
from aot.runs.run_json import read_run_json
from aot.system.cli import EXIT_DONE, add_run_argument, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.processes import host, is_alive
from aot.system.text import counted


def cancel_run(paths: RunPaths) -> list[str]:
    """Cancel all SLURM tasks and local commands of a run.

    Args:
        paths: of the run folder.
    Returns:
        Descriptions of what was cancelled; empty if nothing was running.
    Raises:
        ConfigError: not a run folder, or SLURM does not answer.
    """
    digests = {
        clip_id: Fingerprint.from_json(record).digest for clip_id, record in read_run_json(paths)["clips"].items()
    }
    tasks = {task for each in read_submissions(paths) for task in each.tasks}
    states = task_states(tasks)
    if states is None:
        raise ConfigError("squeue does not answer, so nothing was cancelled; try again, or use scancel")
    living = {task for task, state in states.items() if state not in ENDED}
    cancelled = []
    if living:
        jobs = sorted({task.partition("_")[0] for task in living}, key=int)
        cancel_jobs(jobs)
        cancelled.append(f"{counted(len(living), 'SLURM task')} of {', '.join(jobs)}")
    history = read_history(paths, digests)
    # A cancelled attempt has not failed, and must not count as lost.
    close_cancelled(paths, history, living)
    return cancelled + [f"the command with process id {pid} on this machine" for pid in _stop_local_commands(history)]


def _stop_local_commands(history: History) -> list[int]:
    """Send SIGTERM to the commands on this machine whose workers are processing a clip; returns their process ids."""
    stopped = set()
    for started in history.open:
        if "task" in started or started["host"] != host() or not is_alive(started["pid"]):
            continue
        # The process id may have been reused since: only a command of aot is stopped.
        words = _command_line(started["pid"])
        command = None
        if "aot.launching.child" in words:
            command = int(words[-1])  # its supervisor, see aot.launching.child
        elif "aot.run" in words:
            command = started["pid"]
        if command is not None and command not in stopped:
            with suppress(ProcessLookupError, PermissionError):  # it has exited, or belongs to another user
                os.kill(command, signal.SIGTERM)
                stopped.add(command)
    return sorted(stopped)


def _command_line(pid: int) -> list[str]:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    return []


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = CommandParser(prog="python -m aot.cancel", description="Cancel a run; finished clips stay.")
    add_run_argument(parser)
    options = parser.parse_args(arguments)
    cancelled = cancel_run(RunPaths(options.run))
    if cancelled:
        print(f"cancelled {' and '.join(cancelled)}; run the command that started the run again to resume it")
    else:
        print("no worker is running")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
