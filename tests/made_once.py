"""Folders that are expensive to make, shared by all processes of one session of pytest."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder that `make` creates at the path it is given; made by the first process that asks for it.

    The other processes wait until it is complete. Tests must not change it.
    """
    own = factory.getbasetemp()
    # pytest-xdist gives every process a folder inside that of the session. A pytest that a test starts inherits the
    # variable, but not the folder.
    session = own.parent if own.name == f"popen-{os.environ.get('PYTEST_XDIST_WORKER')}" else own
    folder, complete = session / name, session / f"{name}.complete"
    with (session / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a process that failed
            make(folder)
            complete.touch()
    return folder
