"""SAM 2 as a segmenter; torch and the library `sam2` are imported with the model, not with this package."""

from aot.segmentation.sam2.segmenter import Sam2Segmenter

__all__ = ["Sam2Segmenter"]
