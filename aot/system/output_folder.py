"""Whether the output of a command can be written: checked before anything starts, so that it is reported once."""

from __future__ import annotations

import errno
import os
import pwd
import tempfile
from dataclasses import dataclass
from pathlib import Path

from aot.errors import ConfigError

_REASONS = {
    errno.EACCES: "is not writable for this user",
    errno.EPERM: "is not writable for this user",
    errno.EROFS: "is on a read-only file system",
    errno.ENOSPC: "is on a disk without free space",
    errno.EDQUOT: "is on a disk on which this user has no space left",
}


@dataclass(frozen=True)
class Obstacle:
    """Why nothing can be written to a path."""

    place: Path
    """The path itself or a path above it."""
    problem: str
    """What is wrong with the place, as a predicate: "is a file"."""


def find_obstacle(folder: Path) -> Obstacle | None:
    """What prevents a folder from being created or written; None: nothing.

    The permissions of a folder are not sufficient to decide this: root may write everywhere, but not on a read-only
    file system and not in /proc. Therefore an empty folder is created in the deepest existing folder of the
    path, and removed again.
    """
    place = folder
    while not (exists := os.path.exists(place)) and not os.path.islink(place):  # noqa: PTH110, PTH114 (never raise)
        too_long = _too_long(place)
        if too_long is not None:
            return too_long
        if place == place.parent:
            return Obstacle(place, "no longer exists")
        place = place.parent
    if not exists:
        return Obstacle(place, "is a symbolic link to a path that does not exist")
    if not place.is_dir():
        return Obstacle(place, "is a file")
    try:
        Path(tempfile.mkdtemp(prefix=".", dir=place)).rmdir()
    except OSError as exc:
        return Obstacle(place, _REASONS.get(exc.errno or 0, "does not accept new files"))
    return None


def find_run_obstacle(root: Path) -> Obstacle | None:
    """What prevents a run folder, or one of the folders in it, from being written; None: nothing.

    Args:
        root: the run folder, which may not exist.
    """
    if root.is_dir() and os.access(root, os.R_OK | os.X_OK):
        folders = [
            Path(entry.path) for entry in sorted(os.scandir(root), key=lambda entry: entry.name) if entry.is_dir()
        ]
        folders += [below for below in (root / "report" / "data", root / "logs" / "slurm") if below.is_dir()]
        # Permissions first: they are read without writing anything.
        closed = next((folder for folder in [root, *folders] if not os.access(folder, os.W_OK | os.X_OK)), None)
        if closed is not None:
            return Obstacle(closed, _REASONS[errno.EACCES])
    return find_obstacle(root)


def owner_of(path: Path) -> str | None:
    """The name of the user who owns a file or folder; None: this user, or a user without a name."""
    try:
        owner = path.stat().st_uid
        return None if owner == os.geteuid() else pwd.getpwuid(owner).pw_name
    except (OSError, KeyError):
        return None


def unusable_output(option: str | None, path: Path, obstacle: Obstacle, *, expected: str = "a folder") -> ConfigError:
    """The error for an output that cannot be written.

    Args:
        option: that sets it, such as `output.root` or `--out`; None: the output lies in the run that is read.
        path: its value.
        obstacle: what prevents writing.
        expected: what the value should be.
    """
    if obstacle.place == path:
        problem = obstacle.problem
    else:
        problem = f"cannot be written, because {obstacle.place} {obstacle.problem}"
    setting = path if option is None else f"{option}={path}"
    if option is None:
        next_step = "make its folder writable, or copy the run to another place"
    else:
        next_step = f"choose another one with {option}={expected.split()[-1].upper()}"
    return ConfigError(f"{setting} {problem}; expected {expected} that can be written: {next_step}")


def check_output_folder(option: str | None, folder: Path) -> None:
    """Refuse a folder that cannot be created or written.

    Args:
        option: as for `unusable_output`.
        folder: its value.
    Raises:
        ConfigError: says why.
    """
    obstacle = find_obstacle(folder)
    if obstacle is not None:
        raise unusable_output(option, folder, obstacle)


def check_output_file(option: str | None, file: Path) -> None:
    """Refuse a file that cannot be created or replaced.

    Args:
        option: as for `unusable_output`.
        file: its value.
    Raises:
        ConfigError: says why.
    """
    obstacle = _too_long(file) or find_obstacle(file.parent)
    if obstacle is None and file.is_dir():
        obstacle = Obstacle(file, "is a folder")
    if obstacle is not None:
        raise unusable_output(option, file, obstacle, expected="a file")


def check_path_length(option: str, path: Path) -> None:
    """Refuse a path that no file can have; reading it would fail with an error instead of "does not exist".

    Args:
        option: that sets it, such as `--folder`.
        path: its value.
    Raises:
        ConfigError: a name in it, or the path in total, is too long.
    """
    for place in (path, *path.parents):
        obstacle = _too_long(place)
        if obstacle is not None:
            raise unusable_output(option, path, obstacle)


def _too_long(path: Path) -> Obstacle | None:
    """The obstacle of a path whose last name, or which in total, is longer than the system allows."""
    name, total = len(os.fsencode(path.name)), len(os.fsencode(path))
    try:
        max_name, max_total = os.pathconf("/", "PC_NAME_MAX"), os.pathconf("/", "PC_PATH_MAX")
    except (OSError, ValueError):
        max_name, max_total = 255, 4096
    if name > max_name:
        return Obstacle(path, f"has a name of {name} bytes, and at most {max_name} are possible")
    if total >= max_total:
        return Obstacle(path, f"is a path of {total} bytes, and at most {max_total - 1} are possible")
    return None
