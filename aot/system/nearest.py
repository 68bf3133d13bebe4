"""Suggest an existing name or path for one that does not exist; all messages use the same words for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from aot.system.listing import visible_entries

_MAX_SUGGESTED = 3
_CUTOFF = 0.6
# A name that is less similar than the nearest one by more than this is not suggested beside it.
_MAX_BEHIND = 0.12


def nearest_names(name: str, known: Iterable[str], *, cutoff: float = _CUTOFF) -> list[str]:
    """The known names that are most similar to one that does not exist, the most similar first.

    Args:
        name: as it was given; case, and the choice between "-" and "_", are ignored.
        known: the names that exist.
        cutoff: similarity from which on a name is suggested, 0 to 1.
    """
    by_key: dict[str, list[str]] = {}
    for each in known:
        by_key.setdefault(_key(each), []).append(each)
    near = get_close_matches(_key(name), by_key, n=_MAX_SUGGESTED, cutoff=cutoff)
    similarity = {key: SequenceMatcher(None, key, _key(name)).ratio() for key in near}
    near = [key for key in near if similarity[key] >= similarity[near[0]] - _MAX_BEHIND]
    return [each for key in near for each in by_key[key]][:_MAX_SUGGESTED]


def did_you_mean(names: Sequence[str]) -> str:
    """The question that suggests one or several names."""
    return f"did you mean {' or '.join(names)}?"


def suggestion(name: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """What to write instead of a name that does not exist: the nearest names, or all names.

    Args:
        name: as it was given.
        known: the names that exist, in the order in which to print them.
        otherwise: the clause if no name is similar; empty: "expected one of …".
    """
    known = list(known)
    near = nearest_names(name, known)
    return did_you_mean(near) if near else otherwise or f"expected one of {', '.join(known)}"


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
        names = [entry.name for entry in visible_entries(path)]
    similar = nearest_names(missing[0], names)
    if not similar:
        return None
    found = path / similar[0]
    below = found.joinpath(*missing[1:])
    return below if below.exists() else nearest_path(below) or found


def path_suggestion(path: Path) -> str:
    """The suggestion for a path as the end of a message, "; did you mean …?"; empty without one."""
    near = nearest_path(path)
    return f"; {did_you_mean([str(near)])}" if near else ""


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
