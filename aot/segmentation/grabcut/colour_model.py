"""Colour histograms of an object and of its surroundings, and the log odds that a pixel belongs to the object."""

from __future__ import annotations

import cv2
import numpy as np

from aot.segmentation.grabcut.grid import WorkingFrame, window_of
from aot.types import BoolArray, Float32Array, Int32Array, UInt8Array

# Lab at 16 levels per channel, smoothed: finer bins remember the prompt frame's noise rather than the object's colours.
_BITS = 4
_LEVELS = 1 << _BITS
# Frequency below which a colour counts as unseen, and the limit of the colour term (in log odds).
_RARE = 1e-4
_COLOUR_LIMIT = 3.0
_COLOUR_WEIGHT = 0.35
# A pixel's colour is averaged with its neighbours' colours, sigma in px.
_COLOUR_BLUR_PX = 1.0
# Beyond this distance from the expected outline, in object sizes (square root of the area), colour cannot outweigh it.
_REACH = 0.16
CERTAIN = 20.0
"""Log odds that stand for certainty."""

Histograms = tuple[Float32Array, Float32Array]
"""Colour frequencies of the object and of its surroundings, (LEVELS³,) each."""


def histograms(frame: WorkingFrame, mask: BoolArray) -> Histograms:
    """Colour frequencies inside the mask, and around it within its window."""
    window = window_of(mask)
    bins, inside = _bins(frame.lab[window]), mask[window]
    return _histogram(bins[inside]), _histogram(bins[~inside])


def blend(old: Histograms, new: Histograms, weight: float) -> Histograms:
    """The histograms `old` moved towards `new`; `weight` of `new`, 0..1."""
    return old[0] + weight * (new[0] - old[0]), old[1] + weight * (new[1] - old[1])


def log_odds(frame: WorkingFrame, expected: BoolArray, colours: Histograms) -> Float32Array:
    """Log odds of object against background: from the depth inside the expected mask, and from the colour.

    Args:
        frame: h x w px.
        expected: (h, w) where the object is expected.
        colours: of object and surroundings.
    Returns:
        (h, w); −CERTAIN outside the expected mask's window.
    """
    odds = np.full(expected.shape, -CERTAIN, np.float32)
    if not expected.any():
        return odds
    window = window_of(expected)
    inside = expected[window].astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 3)
    reach = max(1.0, _REACH * float(np.sqrt(np.count_nonzero(expected))))
    ratio = np.clip(np.log((colours[0] + _RARE) / (colours[1] + _RARE)), -_COLOUR_LIMIT, _COLOUR_LIMIT)
    colour = cv2.GaussianBlur(ratio[_bins(frame.lab[window])], (0, 0), _COLOUR_BLUR_PX)
    odds[window] = depth / reach + _COLOUR_WEIGHT * colour
    return odds


def _bins(lab: UInt8Array) -> Int32Array:
    """(h, w) index of each pixel's cell in the colour cube."""
    cells = (lab >> (8 - _BITS)).astype(np.int32)
    return (cells[..., 0] << 2 * _BITS) | (cells[..., 1] << _BITS) | cells[..., 2]


def _histogram(bins: Int32Array) -> Float32Array:
    """Frequencies of the colour cube's cells, smoothed along each of its three axes."""
    cube = np.bincount(bins.ravel(), minlength=_LEVELS**3).reshape((_LEVELS,) * 3).astype(np.float32)
    for _ in range(3):
        padded = np.pad(cube, ((1, 1), (0, 0), (0, 0)), mode="edge")
        cube = np.moveaxis(0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:], 0, -1)
    return cube.ravel() / max(1.0, float(cube.sum()))
