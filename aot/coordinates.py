"""Positions in px, whose centres are at integers, and as fractions of the size of the frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def as_fractions(xy: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Convert px to fractions of the frame's width and height, which are 0 and 1 at its edges.

        px          -0.5     0     0.5          width - 1   width - 0.5
        fraction     0   0.5/width  1/width   1 - 0.5/width       1

    Args:
        xy: (…, 2) px, pixel centres at integers.
        width, height: px.
    """
    fractions: NDArray[np.float32] = ((xy.astype(np.float64) + 0.5) / np.array([width, height])).astype(np.float32)
    return fractions
