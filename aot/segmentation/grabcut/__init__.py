"""GrabCut with optical flow as a segmenter: masks without weights and without a GPU."""

from aot.segmentation.grabcut.segmenter import GrabCutSegmenter

__all__ = ["GrabCutSegmenter"]
