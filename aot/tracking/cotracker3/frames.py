"""Conversion between source and model pixels: frames resized one by one, positions scaled, grids of points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from aot.tracking.frames import ArrayBlocks, Frames, check_block, upload
from aot.types import BoolArray, UInt8Array

# The distance of a grid from all borders is the width divided by this number.
MARGIN_DIVISOR = 64


class FrameReader:
    """Frames from an array or a stream, resized to the model's resolution, one at a time; made by `open`.

    Attributes:
        num_frames: T; None for a stream, whose length is unknown until its end.
        size: (H, W) of the source in px.
        is_rereadable: frames can be read more than once.
    """

    def __init__(
        self,
        blocks: Iterable[UInt8Array],
        begun: Iterator[UInt8Array],
        *,
        num_frames: int | None,
        size: tuple[int, int],
        resolution: tuple[int, int],
        device: torch.device,
    ) -> None:
        self.num_frames, self.size = num_frames, size
        self.is_rereadable = not isinstance(blocks, Iterator)
        self._resolution, self._device = resolution, device
        self._blocks = blocks
        self._begun: Iterator[UInt8Array] | None = begun

    @classmethod
    def open(cls, frames: Frames, resolution: tuple[int, int], device: torch.device) -> FrameReader:
        """Read the first block, which gives the size of the source.

        Args:
            frames: (T, H, W, 3) uint8, or blocks of that shape.
            resolution: (H, W) in px to which frames are resized.
            device: where frames are resized.
        Raises:
            ValueError: there are no frames, or the first block has another shape or type.
        """
        blocks = ArrayBlocks(frames) if isinstance(frames, np.ndarray) else frames
        first_pass = iter(blocks)
        first = next(first_pass, None)
        if first is None or not len(first):
            raise ValueError("frames: got none, expected at least one")
        check_block(first)
        return cls(
            blocks,
            chain([first], first_pass),
            num_frames=len(frames) if isinstance(frames, np.ndarray) else None,
            size=(first.shape[1], first.shape[2]),
            resolution=resolution,
            device=device,
        )

    def __call__(self) -> Iterator[Tensor]:
        """Every frame as (1, 3, h, w) float32 on the device, values 0..255."""
        begun, self._begun = self._begun, None
        for block in self._blocks if begun is None else begun:
            check_block(block)
            for frame in upload(block, self._device):
                yield resized(frame, self._resolution)


def resized(frame: Tensor, resolution: tuple[int, int]) -> Tensor:
    """Resize one frame (H, W, 3) to (1, 3, h, w) float32, values 0..255."""
    image = frame.permute(2, 0, 1)[None].float()
    return functional.interpolate(image, resolution, mode="bilinear", align_corners=True)


def scale_between(source: tuple[int, int], target: tuple[int, int]) -> NDArray[np.float32]:
    """(2,) factors for (x, y) from one size (H, W) to another; the centres of corner pixels map to each other."""
    (height, width), (target_height, target_width) = source, target
    factors = [max(target_width - 1, 1) / max(width - 1, 1), max(target_height - 1, 1) / max(height - 1, 1)]
    return np.array(factors, dtype=np.float32)


def grid_points(side: int, resolution: tuple[int, int], frame: int = 0) -> Tensor:
    """Grid of side x side points (side², 3) on one frame: frame, x, y in model px, row by row."""
    height, width = resolution
    if side == 1:
        return torch.tensor([[frame, width / 2, height / 2]], dtype=torch.float32)
    margin = width / MARGIN_DIVISOR
    y, x = torch.meshgrid(
        torch.linspace(margin, height - margin, side), torch.linspace(margin, width - margin, side), indexing="ij"
    )
    return torch.stack([torch.full_like(x, frame), x, y], dim=-1).view(-1, 3)


def points_in_mask(points: Tensor, mask: BoolArray | UInt8Array, resolution: tuple[int, int]) -> Tensor:
    """The points (P, 3) in model px that are inside the mask (H, W), resized to the model's resolution."""
    full = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
    small = functional.interpolate(full, resolution, mode="nearest")[0, 0]
    last = torch.tensor([resolution[1] - 1, resolution[0] - 1])
    x, y = torch.minimum(points[:, 1:].round().long(), last).clamp_min(0).T
    return points[small[y, x] > 0]
