"""The sizes of the network and the names of its options.

Does not import PyTorch, so that options can be checked and memory predicted without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "bf16", "fp16"]
PrecisionOption = Literal["auto", "fp32", "bf16", "fp16"]
"""auto: bf16 on a GPU that computes it, fp32 elsewhere."""
VisibilityRule = Literal["head", "certainty"]
"""When a point is visible. head: the visibility is above 0.5, as published for TAPNext++; certainty: visibility times
certainty is above 0.5, as published for BootsTAPNext."""

PATCH = 8
"""Px of a side of the square that becomes one image token."""
NUM_BINS = 256
"""Bins per axis in which positions are predicted, whatever the size of the image."""
CONVOLUTION_WIDTH = 4
"""Frames that the convolution over time reads: the current one and three before it."""

CPU_ROWS, GPU_ROWS, LEAN_ROWS = 512, 16384, 128
"""Tokens for which scores and hidden layers exist at once: on a CPU, on a GPU, and with the lean plan."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of one network, read off the shapes of its weights unless given."""

    width: int = 768
    """Numbers per token, D."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    """Of the attention."""
    recurrent_width: int = 768
    """Numbers per token in the recurrence, R."""
    image_size: int = 256
    """Px of a side of the square in which queries are given."""
    input_resolution: int = 256
    """Px of a side to which frames are resized; a multiple of the patch."""

    @property
    def grid(self) -> int:
        """Image tokens along a side."""
        return self.input_resolution // PATCH

    @property
    def num_image_tokens(self) -> int:
        return self.grid**2

    @property
    def state_numbers_per_token(self) -> int:
        """Float32 numbers that all blocks keep per token from frame to frame."""
        return self.depth * CONVOLUTION_WIDTH * self.recurrent_width
