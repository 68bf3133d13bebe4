"""How every command ends that is interrupted, or whose output nobody reads any more."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

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
