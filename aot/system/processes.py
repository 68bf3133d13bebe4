"""Processes of this machine: its name, whether one is running, and ending one with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def host() -> str:
    """The name of this machine; on a SLURM node, the name that the scheduler uses for it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def die_with(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it exits, for whatever reason.

    Args:
        parent: process id of the parent.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it exited before the call
        os._exit(128 + signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is running; a zombie (exited, not yet reaped by its parent) is not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # exited in the meantime, or /proc does not show it
        return True
    return state != "Z"
