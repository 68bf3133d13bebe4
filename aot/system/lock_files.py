"""Lock files: files that only one process can create, on any file system, with who holds the lock as their content."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4


def create_lock(path: Path, holder: Mapping[str, Any]) -> bool:
    """Create a lock file if it does not exist; whether it did not.

    Args:
        path: of the file; its folder exists.
        holder: its content, as JSON.
    Raises:
        OSError: it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, json.dumps(holder).encode())
    finally:
        os.close(descriptor)
    return True


def read_lock(path: Path) -> dict[str, Any] | None:
    """Who holds a lock; None if nothing does, or if the file cannot be read, as before it is completely written."""
    try:
        read = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def remove_stale_lock(path: Path, stale: Mapping[str, Any] | None) -> None:
    """Remove the lock of a process that does not run any more, unless another process has just replaced it.

    Args:
        path: of the file.
        stale: its content as it was read.
    """
    moved = path.with_name(f".{path.name}-{uuid4().hex}")
    with suppress(FileNotFoundError):  # removed by its holder, or by another process
        path.rename(moved)
        if read_lock(moved) != stale:
            with suppress(OSError):  # a third process may hold it by now
                os.link(moved, path)
        moved.unlink()


def release_lock(path: Path, holder: Mapping[str, Any]) -> None:
    """Remove a lock, unless another process has replaced it."""
    if read_lock(path) == holder:
        path.unlink(missing_ok=True)
