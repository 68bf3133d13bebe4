"""How every command ends that is interrupted, or whose output nobody reads any more."""

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
"""128 and the number of SIGPIPE, as shells tell of programs that it ended."""


def run_command(main: Callable[[], int]) -> int:
    """Run a command line's `main`; returns the exit code, also after Ctrl-C or with `| head` behind it."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _is_unread(sys.stdout.fileno()):
            raise
        # Python would complain once more when it closes its standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    return code


def _is_unread(descriptor: int) -> bool:
    """Whether a pipe's reader has gone; another broken pipe is a mistake, and not to be hushed up."""
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
