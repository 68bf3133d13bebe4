"""Frames as networks read them: from an array or a stream, in blocks, and copied to the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from aot.decoding.base import FrameSource
from aot.types import Float32Array, Int64Array, UInt8Array

Frames = UInt8Array | Iterable[UInt8Array]
"""(T, H, W, 3) uint8, or blocks of that shape: an iterator, read once, or an iterable that can be read repeatedly."""

# An array is read in blocks of this many frames, like a stream.
_ARRAY_BLOCK = 8


def check_block(block: UInt8Array) -> None:
    """Raise ValueError if a block of frames has another shape or type than (T, H, W, 3) uint8."""
    if block.ndim != 4 or block.shape[3] != 3 or block.dtype != np.uint8:
        raise ValueError(f"frames: got {block.shape} {block.dtype}, expected (T, H, W, 3) uint8")


class SourceBlocks:
    """Frames of a source as RGB blocks that can be read repeatedly.

    Args:
        frames: the source.
        index: source frames to read, in this order; None: all kept frames.
    """

    def __init__(self, frames: FrameSource, index: Int64Array | None = None) -> None:
        self._frames, self._index = frames, index

    def __iter__(self) -> Iterator[UInt8Array]:
        return (block.rgb for block in self._frames.blocks(self._index))


class ArrayBlocks:
    """Frames (T, H, W, 3) as blocks that can be read repeatedly."""

    def __init__(self, frames: UInt8Array) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self._frames[start : start + _ARRAY_BLOCK] for start in range(0, len(self._frames), _ARRAY_BLOCK))


def upload(array: UInt8Array | Float32Array, device: torch.device) -> Tensor:
    """A copy of an array on the device, asynchronous on CUDA."""
    host = torch.from_numpy(np.ascontiguousarray(array))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)
