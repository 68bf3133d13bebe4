"""A clock that leaves out the time in which this process was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable

# A process that reads the clock every second and was away for this long was stopped, or blocked by a file server. In
# either case, it could not notice what others did meanwhile.
_MAX_STEP_SECONDS = 5.0


class AttendedClock:
    """Time in s, without the periods in which the process did not read the clock.

    A job scheduler suspends jobs, a user stops them, a computer sleeps. After such a period, a time limit that runs
    from the last sign of life of another process would have passed, although that process was stopped as well.

    Args:
        clock: time in s, including these periods.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._now = 0.0

    def __call__(self) -> float:
        """The attended time since construction, in s; to be called at least once a second."""
        now = self._clock()
        step, self._last = now - self._last, now
        if step <= _MAX_STEP_SECONDS:
            self._now += step
        return self._now
