"""The sizes of the released network and the names of its options.

Does not import PyTorch, so that plans can be made and options checked without it.
"""

from __future__ import annotations

from typing import Literal

Mode = Literal["offline", "online"]
Precision = Literal["fp32", "bf16", "fp16"]
LateQueries = Literal["always", "join"]
"""When a query takes part. always: from the first window on, as upstream, so that it influences the other points before
its frame; join: from the first window on that contains its frame, as a stream requires."""

BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
WINDOW_LEN: dict[Mode, int] = {"offline": 60, "online": 16}
"""Length in frames of the released models' time embedding."""
RESOLUTION = (384, 512)
"""(H, W) in px at which the released models were trained."""

STRIDE = 4
"""Px of the model's resolution per pixel of the finest features."""
CHANNELS = 128
NUM_LEVELS = 4

RADIUS = 3
SIDE = 2 * RADIUS + 1
PATCH = SIDE * SIDE
TAPS = SIDE + 1
"""Integer pixels per side from which a patch is interpolated."""

CORRELATION_SIZE = 256
"""Numbers in a token from one level's correlations."""
NUM_FREQUENCIES = 10
MOTION_SIZE = 4 * (1 + 2 * NUM_FREQUENCIES)
TOKEN_SIZE = 2 + NUM_LEVELS * CORRELATION_SIZE + MOTION_SIZE

HIDDEN = 384
NUM_HEADS = 8
NUM_VIRTUAL = 64
NUM_ROUNDS = 3

SUPPORT_SIDE = 6
"""Points per side of the grid of support points that predictors add."""

# The coarsest features must have at least one pixel.
MIN_SIDE_PX = STRIDE << (NUM_LEVELS - 1)


def level_sizes(resolution: tuple[int, int]) -> list[tuple[int, int]]:
    """(h, w) of every level for frames of `resolution` (H, W)."""
    height, width = resolution[0] // STRIDE, resolution[1] // STRIDE
    return [(height >> level, width >> level) for level in range(NUM_LEVELS)]
