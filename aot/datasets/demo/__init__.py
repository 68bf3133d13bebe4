"""The demo dataset: clips drawn by the program itself, with exact ground truth."""

from aot.datasets.demo.dataset import Demo

__all__ = ["Demo"]
