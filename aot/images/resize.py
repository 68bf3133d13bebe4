"""Resize images for consumers that expect one size."""

from __future__ import annotations

import cv2
import numpy as np

from aot.types import UInt8Array


def resized_rgb(rgb: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """(H, W, 3) RGB resized to width and height: by areas where it shrinks, bilinear where it grows."""
    shrinks = size[0] < rgb.shape[1] or size[1] < rgb.shape[0]
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
