"""The demo dataset: synthetic clips with exact ground truth."""

from aot.datasets.demo.dataset import Demo

__all__ = ["Demo"]
