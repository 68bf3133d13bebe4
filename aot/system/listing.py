"""List folders without hidden files and without what operating systems and tools leave in them."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from aot.system.os_errors import os_reason

# Left by Synology, QNAP, macOS archives, Windows and file systems; compared in lower case.
_LEFT_BEHIND = frozenset(
    "@eadir @recycle #recycle #snapshot __macosx lost+found $recycle.bin thumbs.db ehthumbs.db desktop.ini".split()
) | {"system volume information"}


def is_ignored(name: str) -> bool:
    """Whether every reader of folders ignores a file or folder of this name: hidden, or left by a system or tool."""
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def visible_entries(folder: Path) -> list[Path]:
    """The files and folders in a folder that are not ignored, sorted by name.

    Raises:
        OSError: the folder cannot be listed.
    """
    return sorted(entry for entry in folder.iterdir() if not is_ignored(entry.name))


def composed(name: str) -> str:
    """A name with composed characters (NFC): macOS may write é as e and an accent, which looks the same."""
    return unicodedata.normalize("NFC", name)


def find_composed(folder: Path, name: str) -> Path:
    """The path `name` (with `/` between folders) below a folder, also where its characters are stored decomposed.

    Returns:
        The path as it is stored; as `name` gives it if there is no such file or folder.
    """
    path = folder
    for part in PurePosixPath(name).parts:
        stored = path / part
        if not stored.exists() and path.is_dir():
            stored = next((entry for entry in path.iterdir() if composed(entry.name) == composed(part)), stored)
        path = stored
    return path


@dataclass(frozen=True)
class Tree:
    """What is below a folder, links to other folders included."""

    files: list[Path] = field(default_factory=list)
    """Ordered by name, folder by folder."""
    broken_links: list[Path] = field(default_factory=list)
    """Links to something that does not exist."""
    skipped: list[str] = field(default_factory=list)
    """Files and folders that cannot be read, each with the reason."""


def list_tree(folder: Path) -> Tree:
    """List what is below a folder and not ignored; what cannot be read is named, and does not stop the others.

    Args:
        folder: can be read. Links to folders are followed, except to a folder above them.
    Raises:
        OSError: the folder itself cannot be listed.
    """
    tree = Tree()
    _add_folder(folder, frozenset({os.path.realpath(folder)}), tree)
    return tree


def _add_folder(folder: Path, parents: frozenset[str], tree: Tree) -> None:
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not is_ignored(entry.name)), key=lambda entry: entry.name)
    for entry in listed:
        try:
            _add_entry(entry, parents, tree)
        except OSError as exc:
            tree.skipped.append(f"{entry.path} ({os_reason(exc)})")


def _add_entry(entry: os.DirEntry[str], parents: frozenset[str], tree: Tree) -> None:
    path = Path(entry.path)
    if entry.is_dir():
        real = os.path.realpath(path)
        if real in parents:
            tree.skipped.append(f"{path} (a link to a folder above it)")
        else:
            _add_folder(path, parents | {real}, tree)
    elif entry.is_file():
        tree.files.append(path)
    elif entry.is_symlink() and not os.path.exists(path):  # noqa: PTH110 (never raises)
        tree.broken_links.append(path)
