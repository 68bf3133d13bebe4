"""Text of messages."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: "1 clip", "2 clips"; `plural` for irregular ones."""
    return f"{number} {noun if number == 1 else plural or f'{noun}s'}"
