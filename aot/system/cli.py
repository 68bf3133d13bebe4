"""How every command ends: exit codes after an interruption, and when its output is no longer read."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""128 + the number of SIGPIPE, as shells report a program that this signal ended."""


def run_command(main: Callable[[], int]) -> int:
    """Run the `main` of a command; returns the exit code, also after Ctrl-C or when piped into `head`."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise
        # Otherwise Python reports the error again when it closes the standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    return code


def _is_unread(descriptor: int) -> bool:
    """Whether the reader of a pipe has closed it; a broken pipe elsewhere is a bug and must be reported."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))


def output_console() -> Console:
    """Console that prints tables to standard output; text is printed as it is, without markup."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, and would wrap tables that are piped into another program.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)


def count_of(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1: "1 clip", "12 clips"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
