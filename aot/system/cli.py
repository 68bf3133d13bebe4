"""What all commands share: exit codes, the RUN argument, error printing, and how a command ends when interrupted."""

from __future__ import annotations

import argparse
import functools
import os
import select
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from aot.errors import AotError, ConfigError
from aot.system.interrupts import interrupts_raise
from aot.system.output_folder import check_output_file, check_output_folder

if TYPE_CHECKING:
    from rich.console import Console

EXIT_DONE = 0
EXIT_SOME_FAILED = 1
"""Some clips or objects failed; the others are complete."""
EXIT_WRONG = 2
"""The command, the configuration or the manifest is wrong; nothing was started."""
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""128 plus the number of SIGPIPE: the exit code that shells report for programs ended by a closed pipe."""

_PACKAGE = Path(__file__).resolve().parents[1]


class Main(Protocol):
    """The `main` of a command: takes its arguments, by default those of the process, and returns the exit code."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int: ...


def run_command(main: Callable[[], int] | Main) -> int:
    """Run the `main` of a command; returns the exit code, also after Ctrl-C or when piped into `head`."""
    try:
        with interrupts_raise():
            _refuse_start_by_path()
            code = main()
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if not _reader_has_closed(sys.stdout.fileno()):
            raise
        # Otherwise Python reports the error again when it closes the standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    return code


def prints_errors(main: Main) -> Main:
    """Decorate a command's `main(arguments)`: an AotError is printed, and the exit code is that of a wrong command."""

    @functools.wraps(main)
    def printing(arguments: Sequence[str] | None = None) -> int:
        try:
            return main(arguments)
        except AotError as error:
            print(error, file=sys.stderr)
            return EXIT_WRONG

    return printing


def add_run_argument(
    parser: argparse.ArgumentParser,
    *,
    help: str = "a run folder, such as outputs/davis/grabcut-lucas_kanade-k1-0123abcd",
) -> None:
    """Add the RUN argument: the run folder that a command starts from."""
    parser.add_argument("run", type=Path, metavar="RUN", help=help)


def add_workers_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option --workers: the number of processes, at least 1; None (the default) is one per core."""
    parser.add_argument("--workers", type=_at_least_one, help="number of processes; default: one per core")


def check_output(option: str | None, path: Path, *, is_file: bool = False) -> None:
    """Refuse an output that cannot be written, before the command starts its work.

    Args:
        option: that sets it, such as `--out`; None: the output lies in the run that is read.
        path: its value, or the default of the option.
        is_file: whether the output is a file; otherwise it is a folder.
    Raises:
        ConfigError: says why, and that nothing was started.
    """
    check = check_output_file if is_file else check_output_folder
    try:
        check(option, path)
    except ConfigError as error:
        raise ConfigError(f"{error}\nNothing was started.") from error


def version() -> str:
    """The version of aot that is installed."""
    try:
        return metadata.version("auto-objects-tracker")
    except metadata.PackageNotFoundError:
        return "not installed"


def output_console() -> Console:
    """Console that prints tables to standard output; text is printed as it is, without markup."""
    from rich.console import Console

    # Without a terminal rich assumes 80 columns, and would wrap tables that are piped into another program.
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 160)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected an integer of at least 1")
    return int(text)


def _refuse_start_by_path() -> None:
    """Refuse `python aot/run.py`: Python would then import aot/types.py instead of the standard library's `types`."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is None and file and _PACKAGE in Path(file).resolve().parents:
        name = ".".join(Path(file).resolve().relative_to(_PACKAGE.parent).with_suffix("").parts)
        print(f"started by its path; use: python -m {name.removesuffix('.__main__')}", file=sys.stderr)
        raise SystemExit(EXIT_WRONG)


def _reader_has_closed(descriptor: int) -> bool:
    """Whether nothing reads from a pipe any more; any other broken pipe is an error that must be reported."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(state & select.POLLERR for _, state in poll.poll(0))
