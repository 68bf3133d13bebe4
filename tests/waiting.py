"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], bool], timeout_seconds: float = 120.0) -> None:
    """Return as soon as the condition holds.

    Raises:
        TimeoutError: it never did.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {timeout_seconds:g} s it still does not hold")
        time.sleep(0.02)
