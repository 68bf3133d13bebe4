"""Writing in a thread, so that computing does not wait for compression and for the disk."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType


class WriteBehind:
    """Makes calls in a thread, one after another, behind a bounded queue; a context manager.

    The first call that raises is the last one: its error is raised by the next `submit` or `wait`. When the block ends
    with an error, what is still in the queue is dropped.

    Args:
        max_bytes: data that the calls in the queue may hold; a single call may hold more.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._queue: deque[tuple[Callable[[], None], int]] = deque()
        self._num_bytes = 0
        """Of the calls that are queued or being made."""
        self._error: BaseException | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], None], num_bytes: int) -> None:
        """Queue a call that holds this much data; waits until the queue has space for it."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or not self._num_bytes or self._num_bytes + num_bytes <= self._max_bytes
            )
            self._raise_error()
            self._queue.append((call, num_bytes))
            self._num_bytes += num_bytes
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._make_calls, name="write", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until all calls have been made."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._num_bytes)
            self._raise_error()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.wait()
        finally:
            with self._changed:
                self._is_closed = True
                self._queue.clear()
                self._changed.notify_all()
            if self._thread is not None:
                self._thread.join()
            self._error = None  # its traceback holds the data of the call

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _make_calls(self) -> None:
        while (queued := self._next()) is not None:
            call, num_bytes = queued
            try:
                call()
            except BaseException as error:  # noqa: BLE001 (it is raised in the thread that waits for the call)
                self._end_call(num_bytes, error)
                return
            self._end_call(num_bytes)

    def _next(self) -> tuple[Callable[[], None], int] | None:
        """The next call; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed)
            return self._queue.popleft() if self._queue else None

    def _end_call(self, num_bytes: int, error: BaseException | None = None) -> None:
        with self._changed:
            self._num_bytes -= num_bytes
            self._error = error
            self._changed.notify_all()
