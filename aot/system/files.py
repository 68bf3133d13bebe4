"""Atomic writing: a file or folder gets its name only when it is complete, and part files are removed.

A file is written under a temporary name `.<host>-<pid>-<random><suffix>.part` beside its destination, flushed to the
disk, and renamed. Host and pid identify the writer, so that the part files of dead processes can be removed later.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from aot.errors import WriteError
from aot.system.os_errors import os_problem
from aot.system.processes import host

PART_SUFFIX = ".part"
"""Suffix of files that are still being written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it is renamed to `path` when the block ends without an error.

    Two processes that write the same file at the same time do not disturb each other: each has its own temporary
    name, and the later rename wins with an equally complete file.

    Args:
        path: the destination; its parent folders are created.
    Yields:
        An existing empty file beside `path`; removed if the block raises.
    Raises:
        WriteError: the folder cannot be written, or the disk is full. Errors raised in the block pass through.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The clip's name is not part of it: that name may already use the 255 bytes that most file systems allow.
        prefix = f".{host()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix + PART_SUFFIX, dir=path.parent)
        os.fchmod(handle, 0o666 & ~_umask())
        os.close(handle)
    part = Path(name)
    try:
        yield part
        with write_errors(path):
            _flush(part)
            part.replace(path)
            _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; it replaces `path` and its contents when the block ends without an error.

    Args:
        path: the destination; its parent folders are created.
    Yields:
        An existing empty folder beside `path`; removed if the block raises.
    Raises:
        WriteError: the folder cannot be written; an OSError raised in the block is reported as this too. Other errors
            raised in the block pass through.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{host()}-{os.getpid()}-"
        part = Path(tempfile.mkdtemp(prefix=prefix, suffix=PART_SUFFIX, dir=path.parent))
        use_default_permissions(part)
        try:
            yield part
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Map an OSError raised in the block to a WriteError that names the file."""
    try:
        yield
    except OSError as exc:
        raise WriteError(f"{path} could not be written: {os_problem(exc)}") from exc


def write_text(path: Path, text: str) -> None:
    """Replace a text file (UTF-8) atomically: readers see either the old content or the new.

    Raises:
        WriteError: the folder cannot be written, or the disk is full.
    """
    with replacing(path) as part, write_errors(path):
        part.write_text(text, encoding="utf-8")


def names_below(folder: Path, suffix: str) -> set[str]:
    """The files below a folder with a suffix: their paths relative to the folder, without the suffix."""
    found, unread = set(), [("", os.fspath(folder))]
    while unread:
        above, place = unread.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.endswith(suffix):
                        found.add(f"{above}{entry.name.removesuffix(suffix)}")
                    elif entry.is_dir(follow_symlinks=False):
                        unread.append((f"{above}{entry.name}/", entry.path))
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def remove_parts_of(folders: Collection[Path], owners: Collection[tuple[str, int]]) -> int:
    """Delete part files that the given processes, as (host, pid), left in some folders; returns how many."""
    parts = [part for folder in folders for part in folder.glob(f".*{PART_SUFFIX}")]
    return _remove(parts, lambda part, machine, pid: (machine, pid) in owners)


def remove_parts(root: Path, is_removable: Callable[[Path, str, int], bool]) -> int:
    """Delete some of the part files below a folder.

    Args:
        root: the folder.
        is_removable: called with a part file, and host and pid of the process that has written it.
    Returns:
        How many were deleted.
    Raises:
        WriteError: the folder cannot be written.
    """
    return _remove(_parts_below(root), is_removable)


def _parts_below(root: Path) -> list[Path]:
    found, unread = [], [os.fspath(root)]
    while unread:
        try:
            with os.scandir(unread.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith(".") and entry.name.endswith(PART_SUFFIX):
                        found.append(Path(entry.path))
                    elif entry.is_dir(follow_symlinks=False):
                        unread.append(entry.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return found


def _remove(parts: Iterable[Path], is_removable: Callable[[Path, str, int], bool]) -> int:
    removed = 0
    for part in parts:
        name, _, pid = part.name[1:].rpartition("-")[0].rpartition("-")
        if pid.isdecimal() and part.is_file() and is_removable(part, name, int(pid)):
            with write_errors(part):
                part.unlink(missing_ok=True)
            removed += 1
    return removed


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def use_default_permissions(folder: Path) -> None:
    """Give a folder made by `tempfile` the permissions of other new folders."""
    folder.chmod((0o777 & ~_umask()) | (folder.stat().st_mode & stat.S_ISGID))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
