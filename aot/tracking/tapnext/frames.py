"""Frames resized to the network's resolution, and positions converted between source px and its spaces.

Source px have their centres at integers. Queries are given in the network's image (a square of `image_size` px) and
positions predicted in bins (a square of 256), both corner-based: the centre of the first pixel is at 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor
from torch.nn import functional

from aot.tracking.frames import ArrayBlocks, Frames, check_block
from aot.tracking.tapnext.sizes import NUM_BINS
from aot.types import Float32Array, UInt8Array


def blocks_of(frames: Frames) -> Iterator[UInt8Array]:
    """The frames as blocks.

    Raises:
        ValueError: a block has another shape or type, or another size than the first.
    """
    size = None
    for block in ArrayBlocks(frames) if isinstance(frames, np.ndarray) else frames:
        check_block(block)
        if size not in (None, block.shape[1:3]):
            raise ValueError(f"frames: got a block of {block.shape[1:3]} after one of {size} (H, W), expected one size")
        size = block.shape[1:3]
        yield block


def resized(frame: Tensor, resolution: int) -> Tensor:
    """One frame (H, W, 3) uint8 as (3, R, R) float32, values -1..1; its aspect ratio is not kept."""
    image = frame.permute(2, 0, 1)[None].float()
    image = functional.interpolate(image, (resolution, resolution), mode="bilinear", align_corners=False)
    return image[0] / 127.5 - 1


def to_network(xy: Float32Array, size: tuple[int, int], image_size: int) -> Float32Array:
    """Positions (n, 2) in source px of frames of `size` (H, W), in px of the network's image."""
    scale = np.array([image_size / size[1], image_size / size[0]], dtype=np.float32)
    converted: Float32Array = (xy + np.float32(0.5)) * scale
    return converted


def to_source(xy: Float32Array, size: tuple[int, int]) -> Float32Array:
    """Positions (…, 2) in bins, in source px of frames of `size` (H, W)."""
    scale = np.array([size[1] / NUM_BINS, size[0] / NUM_BINS], dtype=np.float32)
    converted: Float32Array = xy * scale - np.float32(0.5)
    return converted
