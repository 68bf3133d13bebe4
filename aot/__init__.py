"""aot: masks and point tracks of chosen objects, for whole datasets of videos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aot.runs.index import RunResults, open_run
    from aot.types import ClipResult
    from aot.writing.reader import load

__all__ = ["ClipResult", "RunResults", "load", "open_run"]


def __getattr__(name: str) -> Any:
    """Import the public names on first use: `import aot` stays as quick as the command line wants it."""
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
