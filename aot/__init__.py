"""aot: masks and point tracks of chosen objects, for whole datasets of videos."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aot.runs.index import RunResults, open_run
    from aot.types import ClipResult
    from aot.writing.reader import load

__all__ = ["ClipResult", "RunResults", "load", "open_run"]


def _check_environment() -> None:
    """Exit if a dependency is missing, with the command that activates the right environment."""
    needed = "av cv2 h5py hydra numpy pydantic rich submitit torch yaml".split()
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"No module named {missing[0]!r}: {sys.executable} lacks a dependency of aot. Activate the environment "
            f"that `make demo` created (. .venv/bin/activate), or install aot into this one (pip install .)",
            file=sys.stderr,
        )
        raise SystemExit(2)


# While Python locates the module of `python -m aot.run`, sys.argv[0] is "-m". `import aot` is not checked.
if sys.argv[:1] == ["-m"]:
    _check_environment()


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that `import aot` and the command line start quickly."""
    if name == "load":
        from aot.writing.reader import load

        return load
    if name in ("RunResults", "open_run"):
        from aot.runs import index

        return getattr(index, name)
    if name == "ClipResult":
        from aot.types import ClipResult

        return ClipResult
    raise AttributeError(f"module 'aot' has no attribute {name!r}; it offers {', '.join(__all__)}")
