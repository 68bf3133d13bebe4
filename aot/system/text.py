"""Text of messages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 clip", "2 clips"; `plural` for irregular ones."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"


def first_names(names: Iterable[object], *, at_most: int = 5) -> str:
    """Names separated by commas: the first few, and "…" if there are more."""
    texts = [str(name) for name in names]
    return ", ".join(texts[:at_most]) + (", …" if len(texts) > at_most else "")


def override_text(key: str, value: str | Path) -> str:
    """A setting as it is typed in a shell: `key=value`, with the quotes that the shell and Hydra need.

    Args:
        key: the dotted key.
        value: what the user typed, where 2 is a number; or a path, which is text also if it looks like a number.
    """
    text = str(value)
    is_plain = re.fullmatch(r"[A-Za-z0-9_./@%+-]+", text)
    is_ambiguous = isinstance(value, Path) and re.fullmatch(r"(?i)[+-]?[.\d].*|[+-]?(inf|nan)|null|true|false", text)
    if is_plain and not is_ambiguous:
        return f"{key}={text}"
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', text)
    escaped += "\\" * (len(text) - len(text.rstrip("\\")))
    return shlex.quote(f'{key}="{escaped}"')
