"""An inference engine for CoTracker3: the results of the released weights within a memory limit.

    model = load_model("checkpoints/scaled_offline.pth")
    tracks = track_offline(model, frames, query_points=points)

Written from the papers and from measurements of the released model; its weights are CC-BY-NC 4.0, this code is not.
docs/cotracker3.md documents the engine. Importing this package does not import PyTorch; using its members does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from aot.tracking.cotracker3.plan import MemoryPlan

if TYPE_CHECKING:
    from aot.tracking.cotracker3.loading import load_model
    from aot.tracking.cotracker3.model import CoTracker3
    from aot.tracking.cotracker3.offline import track_offline
    from aot.tracking.cotracker3.online import OnlineSession, track_online

__all__ = ["CoTracker3", "MemoryPlan", "OnlineSession", "load_model", "track_offline", "track_online"]

_MODULES = {
    "CoTracker3": "model",
    "load_model": "loading",
    "track_offline": "offline",
    "OnlineSession": "online",
    "track_online": "online",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
