"""Between source pixels and the model's: frames resized one by one, positions scaled, grids of points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aot.decoding.base import FrameSource
from aot.types import BoolArray, Int64Array, UInt8Array

Frames = UInt8Array | Iterable[UInt8Array]
"""(T, H, W, 3) uint8, or blocks of that form: an iterator, read once, or an iterable, which can be read again."""

# An array is read in blocks of this many frames, as a stream would come.
ARRAY_BLOCK = 8
# The grid keeps one such part of the width from the border.
MARGIN_PARTS = 64


class FrameReader:
    """Frames of any form, resized to the model's resolution, one at a time.

    Attributes:
        num_frames: T; None where only reading to the end would tell.
        size: (H, W) of the source.
    """

    def __init__(self, frames: Frames, resolution: tuple[int, int], device: torch.device) -> None:
        self._resolution, self._device = resolution, device
        self.num_frames = len(frames) if isinstance(frames, np.ndarray) else None
        blocks = _blocks_of(frames)
        self.can_be_read_again = not isinstance(blocks, Iterator)
        first_pass = iter(blocks)
        first = next(first_pass, None)
        if first is None or not len(first):
            raise ValueError("frames: got none, expected at least one")
        self._check(first)
        self.size = (first.shape[1], first.shape[2])
        self._blocks: Iterable[UInt8Array] = blocks
        self._begun: Iterator[UInt8Array] | None = chain([first], first_pass)

    def __call__(self) -> Iterator[Tensor]:
        """Every frame as (1, 3, h, w) float32 on the device, values 0..255."""
        begun, self._begun = self._begun, None
        for block in self._blocks if begun is None else begun:
            self._check(block)
            for frame in upload(block, self._device):
                yield resized(frame, self._resolution)

    @staticmethod
    def _check(block: UInt8Array) -> None:
        if block.ndim != 4 or block.shape[3] != 3 or block.dtype != np.uint8:
            raise ValueError(f"frames: got {block.shape} {block.dtype}, expected (T, H, W, 3) uint8")


def _blocks_of(frames: Frames) -> Iterable[UInt8Array]:
    return _ArrayBlocks(frames) if isinstance(frames, np.ndarray) else frames


class SourceBlocks:
    """Some of a source's frames as blocks of RGB that can be read as often as asked."""

    def __init__(self, frames: FrameSource, index: Int64Array | None = None) -> None:
        self._frames, self._index = frames, index

    def __iter__(self) -> Iterator[UInt8Array]:
        return (block.rgb for block in self._frames.blocks(self._index))


class _ArrayBlocks:
    def __init__(self, frames: UInt8Array) -> None:
        self._frames = frames

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self._frames[start : start + ARRAY_BLOCK] for start in range(0, len(self._frames), ARRAY_BLOCK))


def upload(block: UInt8Array, device: torch.device) -> Tensor:
    """A block of frames as it is, on the device; a GPU copies while it computes."""
    host = torch.from_numpy(np.ascontiguousarray(block))
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host.to(device)


def resized(frame: Tensor, resolution: tuple[int, int]) -> Tensor:
    """One frame (H, W, 3) as (1, 3, h, w) float32."""
    picture = frame.permute(2, 0, 1)[None].float()
    return functional.interpolate(picture, resolution, mode="bilinear", align_corners=True)


def scale_between(source: tuple[int, int], target: tuple[int, int]) -> NDArray[np.float32]:
    """(2,) factors for (x, y) from one size (H, W) to another; corners fall on corners."""
    (height, width), (target_height, target_width) = source, target
    factors = [max(target_width - 1, 1) / max(width - 1, 1), max(target_height - 1, 1) / max(height - 1, 1)]
    return np.array(factors, dtype=np.float32)


def grid_points(side: int, resolution: tuple[int, int], frame: int = 0) -> Tensor:
    """side x side points (side², 3) of one frame in model px, rows outer."""
    height, width = resolution
    if side == 1:
        return torch.tensor([[frame, width / 2, height / 2]], dtype=torch.float32)
    margin = width / MARGIN_PARTS
    y, x = torch.meshgrid(
        torch.linspace(margin, height - margin, side), torch.linspace(margin, width - margin, side), indexing="ij"
    )
    return torch.stack([torch.full_like(x, frame), x, y], dim=-1).view(-1, 3)


def points_in_mask(points: Tensor, mask: BoolArray | UInt8Array, resolution: tuple[int, int]) -> Tensor:
    """Those of the points (P, 3) that fall on the mask, brought to model size."""
    wide = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
    small = functional.interpolate(wide, resolution, mode="nearest")[0, 0]
    last = torch.tensor([resolution[1] - 1, resolution[0] - 1])
    x, y = torch.minimum(points[:, 1:].round().long(), last).clamp_min(0).T
    return points[small[y, x] > 0]
