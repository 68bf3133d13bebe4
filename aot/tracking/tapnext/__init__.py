"""An inference engine for TAPNext and TAPNext++: the results of the released weights, one frame at a time.

    model = load_model("checkpoints/tapnextpp_ckpt.pt")
    tracks = track(model, frames, query_points)

Written from the papers and from measurements of the released model, whose code and weights are Apache-2.0.
Importing this package does not import PyTorch; using its members does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aot.tracking.tapnext.loading import load_model
    from aot.tracking.tapnext.model import TAPNext
    from aot.tracking.tapnext.session import Session
    from aot.tracking.tapnext.tracking import track

__all__ = ["Session", "TAPNext", "load_model", "track"]

_MODULES = {"TAPNext": "model", "load_model": "loading", "Session": "session", "track": "tracking"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
