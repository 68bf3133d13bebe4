"""Folders that all users of a group can write, whatever the umask of the user who creates them."""

from __future__ import annotations

import grp
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aot.errors import ConfigError
from aot.system.files import write_errors


def allow_group(group: str, folder: Path) -> None:
    """Let a group write a folder and everything that this process creates from now on.

    New files and folders below the folder belong to the group, because it has the set-group-ID bit. Files that exist
    already are not changed.

    Args:
        group: its name or number.
        folder: created if it does not exist.
    Raises:
        ConfigError: there is no such group, or this user does not belong to it.
        WriteError: the folder cannot be created.
    """
    number = _group_number(group)
    os.umask(_umask() & ~0o070)
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        state = folder.stat()
    wanted = stat.S_IMODE(state.st_mode) | stat.S_ISGID | 0o070
    if (state.st_gid, stat.S_IMODE(state.st_mode)) == (number, wanted):
        return
    if state.st_uid != os.geteuid() and os.geteuid() != 0:
        raise ConfigError(
            f"output.group={group}: {folder} does not admit this group, and only its owner can change this; ask the "
            f"owner to run the command with output.group={group}, or choose another folder with output.root=FOLDER"
        )
    try:
        os.chown(folder, -1, number)
        folder.chmod(wanted)
    except PermissionError as exc:
        raise ConfigError(
            f"output.group={group}: this user does not belong to this group; expected one of {', '.join(own_groups())}"
        ) from exc


@contextmanager
def restored_umask() -> Iterator[None]:
    """Restore the umask of this process at the end of the block."""
    before = _umask()
    try:
        yield
    finally:
        os.umask(before)


def own_groups() -> list[str]:
    """The names of the groups of this user; numbers of groups without a name."""
    names = []
    for number in sorted({os.getegid(), *os.getgroups()}):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            names.append(str(number))
    return names


def _group_number(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        if group.isdecimal():
            return int(group)
        raise ConfigError(
            f"output.group={group}: there is no such group; expected one of {', '.join(own_groups())}"
        ) from exc


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
