"""Calls of SLURM's commands: which tasks are alive, how the others ended, and how to cancel them.

None of them is called often: a controller serves thousands of users, and frequent calls of sacct have stalled clusters.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence

from aot.errors import ConfigError

STATE_CANCELLED = "CANCELLED"
STATE_OUT_OF_MEMORY = "OUT_OF_MEMORY"
STATE_PREEMPTED = "PREEMPTED"
STATE_TIMEOUT = "TIMEOUT"
GONE = "GONE"
"""Not a state of SLURM: SLURM does not know the task any more."""
ENDED = frozenset(
    "BOOT_FAIL CANCELLED COMPLETED DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PREEMPTED REVOKED TIMEOUT GONE".split()
)
"""Final states; a task that is requeued is PENDING again."""

_TIMEOUT_SECONDS = 60
_DEFAULT_ARRAY_SIZE = 1001


def task_states(tasks: Iterable[str]) -> dict[str, str] | None:
    """The state of every task, by one call of squeue; None if SLURM does not answer.

    Args:
        tasks: `<array job>_<index>`, or `<job>` for a task that is not in an array.
    """
    wanted = list(tasks)
    jobs = sorted({task.partition("_")[0] for task in wanted}, key=int)
    if not jobs:
        return {}
    answer = _call(["squeue", "--noheader", "--array", "--states=all", "--format=%F %K %T", f"--jobs={','.join(jobs)}"])
    if answer is None:
        return None
    states = dict.fromkeys(wanted, GONE)
    for line in answer.splitlines():
        job, index, state = line.split()
        task = job if index == "N/A" else f"{job}_{index}"
        if task in states:
            states[task] = state
    return states


def last_states(tasks: Iterable[str]) -> dict[str, str]:
    """Final states of tasks that squeue does not know any more, by one call of sacct; empty without accounting."""
    wanted = set(tasks)
    jobs = sorted({task.partition("_")[0] for task in wanted}, key=int)
    if not jobs:
        return {}
    answer = _call(
        ["sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", f"--jobs={','.join(jobs)}"]
    )
    states = {}
    for line in (answer or "").splitlines():
        task, _, state = line.partition("|")
        if task in wanted:
            states[task] = state.split()[0]  # "CANCELLED by 0"
    return states


def cancel_jobs(jobs: Sequence[str]) -> None:
    """Cancel jobs, each with all tasks of its array.

    Raises:
        ConfigError: SLURM does not answer, or does not permit it.
    """
    answer = subprocess.run(["scancel", *jobs], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603, S607
    if answer.returncode != 0 and "Invalid job id" not in answer.stderr:
        raise ConfigError(f"scancel {' '.join(jobs)}: {answer.stderr.strip() or 'failed'}")


def max_array_tasks() -> int:
    """The maximum number of tasks in one array on this cluster."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]) or "", re.MULTILINE)
    return int(found.group(1)) if found else _DEFAULT_ARRAY_SIZE


def _call(command: list[str]) -> str | None:
    """The output of a command; None if it fails."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode != 0:
        # For a single job that SLURM does not know any more, squeue fails with this error.
        return "" if "Invalid job id" in answer.stderr else None
    return answer.stdout
