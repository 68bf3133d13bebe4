"""Wait for a condition that other processes bring about."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    condition: Callable[[], bool], timeout_seconds: float = 120.0, *, interval_seconds: float = 0.02
) -> None:
    """Return as soon as the condition holds; it is checked every `interval_seconds`.

    Raises:
        TimeoutError: the condition did not hold within `timeout_seconds`.
    """
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the condition does not hold after {timeout_seconds:g} s")
        time.sleep(interval_seconds)
