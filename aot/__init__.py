"""aot: masks and point tracks of chosen objects, for whole datasets of videos."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from aot.system.interrupts import exit_on_interrupt

if TYPE_CHECKING:
    from aot.notebook import track
    from aot.runs.index import RunResults, open_run
    from aot.runs.windows import windows
    from aot.types import ClipResult
    from aot.writing.reader import load

__all__ = ["ClipResult", "RunResults", "load", "open_run", "track", "windows"]


def _check_environment() -> None:
    """Exit if a dependency is missing, with the command that activates the right environment."""
    import importlib.util

    needed = "av cv2 h5py hydra numpy pydantic rich submitit torch yaml".split()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"No module named {missing[0]!r}: {sys.executable} lacks a dependency of aot. Activate the environment "
            f"that `make demo` created (. .venv/bin/activate), or install aot into this one (pip install .)",
            file=sys.stderr,
        )
        raise SystemExit(2)


def _is_command() -> bool:
    """Whether this process is `aot VERB` or `python -m aot.VERB`, not another program that imports aot."""
    if sys.argv[:1] != ["-m"]:
        return "".join(sys.argv[:1]).rpartition("/")[2] == "aot"
    # Python is locating the module of -m. Its name, or "-mNAME", precedes the command's arguments.
    return sys.orig_argv[-len(sys.argv)].removeprefix("-m").split(".")[0] == "aot"


if _is_command():
    exit_on_interrupt()
    _check_environment()


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import aot` and the command line start quickly."""
    if name == "load":
        from aot.writing.reader import load

        return load
    if name in ("RunResults", "open_run"):
        from aot.runs import index

        return getattr(index, name)
    if name == "track":
        from aot.notebook import track

        return track
    if name == "windows":
        from aot.runs.windows import windows

        return windows
    if name == "ClipResult":
        from aot.types import ClipResult

        return ClipResult
    raise AttributeError(f"module 'aot' has no attribute {name!r}; it offers {', '.join(__all__)}")
