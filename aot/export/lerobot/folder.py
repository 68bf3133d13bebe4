"""Replace the folder of a dataset at once: it is built beside its place, and gets its name when it is complete."""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aot.errors import ConfigError, DatasetError, ExportError
from aot.system.files import PART_SUFFIX, use_default_permissions, write_errors
from aot.system.interrupts import interrupts_blocked
from aot.system.os_errors import os_reason
from aot.system.processes import host, is_alive

State = dict[str, tuple[int, int, int]]
_EXCHANGE, _AT_FDCWD = 2, -100
_NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK)


@contextmanager
def rebuilt_dataset(source: Path, target: Path, rewritten: Collection[Path], before: State) -> Iterator[Path]:
    """Yield a folder with the files of a dataset; it replaces `target` when the block ends without an error.

    Args:
        source: the dataset. It is not changed, unless it is the target.
        target: outside the source, or the source itself. Then the other files are linked, not copied.
        rewritten: files, relative to the source, that the block writes or leaves out.
        before: of the source, before anything was read from it.
    Raises:
        ConfigError: the source has links to folders, or the file system has no hard links, and it is the target.
        DatasetError: a file of the source cannot be read.
        ExportError: the source has changed meanwhile.
        WriteError: the folder cannot be written.
    """
    in_place = source == target
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        prefix = f"{_prefix(target)}{host()}-{os.getpid()}-"
        part = Path(tempfile.mkdtemp(prefix=prefix, suffix=PART_SUFFIX, dir=target.parent))
    try:
        with write_errors(target):
            _fill(source, part, set(rewritten), in_place=in_place)
        yield part
        if dataset_state(source) != before:
            raise ExportError(
                f"{source}: its files have changed during the export, for example by a recording; nothing was "
                f"written: run the command again when nothing else writes to the dataset"
            )
        with write_errors(target), interrupts_blocked():
            _replace(target, part)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def dataset_state(folder: Path) -> State:
    """Inode, size and modification time of all files of a dataset, to notice changes.

    Raises:
        DatasetError: a folder in it cannot be read.
    """
    found: State = {}
    for place, _, names in os.walk(folder, onerror=_refuse):
        for name in names:
            path = Path(place, name)
            with suppress(FileNotFoundError):
                stat = path.lstat()
                found[str(path.relative_to(folder))] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


def _refuse(error: OSError) -> None:
    raise DatasetError(
        f"{error.filename} cannot be read: {os_reason(error)}; a dataset is exported only completely: check the "
        f"permissions of its files and folders"
    ) from error


def _fill(source: Path, part: Path, rewritten: Collection[Path], *, in_place: bool) -> None:
    """Link or copy all files but the rewritten ones."""
    for place, names, file_names in os.walk(source, followlinks=not in_place, onerror=_refuse):
        below = Path(place).relative_to(source)
        for name in list(names):
            folder = Path(place, name)
            if folder.is_symlink() and in_place:
                raise ConfigError(
                    f"--in-place: {folder} is a link to a folder, whose files cannot be replaced together with the "
                    f"others; write a copy with --out FOLDER"
                )
            if folder.is_symlink() and folder.resolve() in (Path(place).resolve(), *Path(place).resolve().parents):
                names.remove(name)
                (part / below / name).symlink_to(folder.readlink())
                continue
            (part / below / name).mkdir()
            if in_place:
                shutil.copystat(folder, part / below / name)
        for name in file_names:
            if below / name not in rewritten:
                (_link if in_place else _copy)(Path(place, name), part / below / name)
    # The folders of a copy are writable, whatever the permissions of the dataset are.
    if in_place:
        shutil.copystat(source, part)
    else:
        use_default_permissions(part)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink() and not source.exists():
        target.symlink_to(source.readlink())
        return
    try:
        source.open("rb").close()
    except OSError as exc:
        _refuse(exc)
    shutil.copy2(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        raise ConfigError(
            f"--in-place: {source} cannot be linked, because the file system or its permissions do not allow hard "
            f"links; write a copy with --out FOLDER"
        ) from exc


def _replace(target: Path, part: Path) -> None:
    """Give the folder `part` the name `target`; a folder of that name is then called `part`."""
    if not target.exists():
        part.rename(target)
    elif not _exchanged(part, target):
        # File systems such as NFS cannot exchange two names: for some microseconds, the old folder has another name.
        old = target.with_name(f"{_prefix(target)}previous{PART_SUFFIX}")
        target.rename(old)
        part.rename(target)
        old.rename(part)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; whether the system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one))


def _prefix(target: Path) -> str:
    return f".{target.name}-aot-"


def remove_leftovers(target: Path) -> None:
    """Remove what killed exports to the same folder have left, and complete or undo a replacement that was killed.

    Raises:
        WriteError: the folder above the target cannot be written.
    """
    old = target.with_name(f"{_prefix(target)}previous{PART_SUFFIX}")
    with write_errors(target):
        if old.is_dir() and not target.exists():
            old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    for part in target.parent.glob(f"{glob.escape(_prefix(target))}*{PART_SUFFIX}"):
        machine, _, pid = part.name.removeprefix(_prefix(target)).rpartition("-")[0].rpartition("-")
        if machine == host() and pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(part, ignore_errors=True)
