"""What Ctrl-C does: it ends a command that is still importing modules, and later raises KeyboardInterrupt.

A KeyboardInterrupt raised by an import prints a traceback that means nothing to users, or gets lost in a callback of
the import system. Nothing needs to be cleaned up at that time, so the process exits immediately.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType


def exit_on_interrupt() -> None:
    """From now on, Ctrl-C ends this process with one line and exit code 130, unless SIGINT is ignored or handled."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _exit)


def interrupts_exit() -> AbstractContextManager[None]:
    """Context in which Ctrl-C ends this process as after `exit_on_interrupt`."""
    return _replaced(signal.default_int_handler, _exit)


def interrupts_raise() -> AbstractContextManager[None]:
    """Context in which Ctrl-C raises KeyboardInterrupt, also after `exit_on_interrupt`."""
    return _replaced(_exit, signal.default_int_handler)


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Context in which Ctrl-C has no effect until its end.

    Processes of `multiprocessing` that are started in it never receive SIGINT. A terminal sends it to all processes of
    a command, which would each print a traceback.
    """
    from multiprocessing import resource_tracker  # this module is imported first, so that Ctrl-C works early

    # It is started with the first process, and its start ends by unblocking SIGINT.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _replaced(handler: Any, by: Any) -> Iterator[None]:
    """Replace the handler of SIGINT, if it is the given one."""
    is_replaced = signal.getsignal(signal.SIGINT) is handler
    if is_replaced:
        signal.signal(signal.SIGINT, by)
    try:
        yield
    finally:
        if is_replaced:
            signal.signal(signal.SIGINT, handler)


def _exit(number: int, frame: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"\ninterrupted\n")
    os._exit(128 + number)
