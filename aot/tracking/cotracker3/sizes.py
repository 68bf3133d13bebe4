"""The network's sizes as the released weights have them, and its options' names; no PyTorch, so that plans can be made
and options checked without it."""

from __future__ import annotations

from typing import Literal

Mode = Literal["offline", "online"]
Precision = Literal["fp32", "bf16", "fp16"]
LateQueries = Literal["always", "join"]
"""always: every query takes part from the first window on, as upstream's do, and so acts on the others before its
frame has come; join: a query takes part from the first window on that holds its frame, as a stream needs."""

BYTES: dict[Precision, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
WINDOW_LEN: dict[Mode, int] = {"offline": 60, "online": 16}
"""Frames that the released models' time embedding was made for."""
RESOLUTION = (384, 512)
"""(H, W) in px that the released models were trained at."""

STRIDE = 4
"""Px of the model's resolution a pixel of the finest features."""
CHANNELS = 128
NUM_LEVELS = 4

RADIUS = 3
SIDE = 2 * RADIUS + 1
PATCH = SIDE * SIDE
TAPS = SIDE + 1
"""Whole pixels a side that a patch's samples are blended from."""

CORRELATION_SIZE = 256
"""Numbers that a token gets from one level's correlations."""
NUM_FREQUENCIES = 10
MOTION_SIZE = 4 * (1 + 2 * NUM_FREQUENCIES)
TOKEN_SIZE = 2 + NUM_LEVELS * CORRELATION_SIZE + MOTION_SIZE

HIDDEN = 384
NUM_HEADS = 8
NUM_VIRTUAL = 64
NUM_ROUNDS = 3

SUPPORT_SIDE = 6
"""The grid of points that predictors add for support has so many a side."""

# The coarsest features must have a pixel.
MIN_SIDE_PX = STRIDE << (NUM_LEVELS - 1)


def level_sizes(resolution: tuple[int, int]) -> list[tuple[int, int]]:
    """(h, w) of every level for frames of `resolution` (H, W)."""
    height, width = resolution[0] // STRIDE, resolution[1] // STRIDE
    return [(height >> level, width >> level) for level in range(NUM_LEVELS)]
