"""Pyramidal Lucas-Kanade with OpenCV as a tracker: no weights, no GPU."""

from aot.tracking.lucas_kanade.tracker import LucasKanadeTracker

__all__ = ["LucasKanadeTracker"]
