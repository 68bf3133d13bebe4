"""Identity and state of processes: the name of this machine, and whether a process of it is running."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host() -> str:
    """The name of this machine; on a SLURM node, the name that the scheduler uses for it."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


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
