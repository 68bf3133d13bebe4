"""Suggest an existing path for one that does not exist."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path


def nearest_path(path: Path) -> Path | None:
    """The existing path with the most similar name.

    Args:
        path: does not exist.
    Returns:
        The path with its first wrong part replaced, and the later parts as far as they exist; None if no name is
        similar.
    """
    missing: list[str] = []
    while not path.exists():
        missing.insert(0, path.name)
        path = path.parent
    names: list[str] = []
    with suppress(OSError):  # not a folder, or not readable
        names = [entry.name for entry in path.iterdir() if not entry.name.startswith(".")]
    similar = get_close_matches(missing[0], names, n=1)
    if not similar:
        return None
    found = path / similar[0]
    below = found.joinpath(*missing[1:])
    return below if below.exists() else nearest_path(below) or found


def did_you_mean(path: Path) -> str:
    """The suggestion as the end of a message, "; did you mean …?"; empty without one."""
    near = nearest_path(path)
    return f"; did you mean {near}?" if near else ""
