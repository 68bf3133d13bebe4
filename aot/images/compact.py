"""Masks in a compact form, of which thousands fit into memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aot.types import BoolArray, Int64Array, UInt8Array


@dataclass(frozen=True, eq=False)
class CompactMask:
    """A mask cropped to its bounding box, with one bit per pixel."""

    bits: UInt8Array
    """(h, ⌈w / 8⌉) the pixels of the crop, packed along the rows."""
    row: int
    """Row of the crop's upper left corner."""
    column: int
    """Column of the crop's upper left corner."""
    width: int
    """Of the crop, px."""
    area: int
    """Number of pixels in the mask."""
    centre: tuple[float, float]
    """Mean row and column of the mask in the frame, px; (0, 0) if the mask is empty."""

    @classmethod
    def of(cls, mask: BoolArray) -> CompactMask:
        """The compact form of an (H, W) mask."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return NO_MASK
        top, left = int(rows[0]), int(columns[0])
        crop = mask[top : rows[-1] + 1, left : columns[-1] + 1]
        in_rows, in_columns = np.count_nonzero(crop, axis=1), np.count_nonzero(crop, axis=0)
        area = int(in_rows.sum())
        # Sums of integers are exact, in any order.
        down, across = int(in_rows @ np.arange(len(in_rows))), int(in_columns @ np.arange(len(in_columns)))
        centre = (top + down / area, left + across / area)
        return cls(np.packbits(crop, axis=1), top, left, crop.shape[1], area, centre)

    @property
    def num_bytes(self) -> int:
        """Memory that the mask takes."""
        return self.bits.nbytes + _OVERHEAD_BYTES

    def pixels(self) -> BoolArray:
        """(h, w) the crop."""
        return np.unpackbits(self.bits, axis=1, count=self.width).view(np.bool_)

    def in_frame(self, height: int, width: int) -> BoolArray:
        """(H, W) the mask in a frame of this size."""
        mask = np.zeros((height, width), dtype=np.bool_)
        pixels = self.pixels()
        mask[self.row : self.row + pixels.shape[0], self.column : self.column + pixels.shape[1]] = pixels
        return mask

    def contains(self, x: Int64Array, y: Int64Array) -> BoolArray:
        """(N,) whether the pixels at columns x and rows y are in the mask; none outside the frame is."""
        column, row = x - self.column, y - self.row
        inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < len(self.bits))
        column, row = column[inside], row[inside]
        inside[inside] = (self.bits[row, column // 8] >> (7 - column % 8).astype(np.uint8)) & 1
        return inside


NO_MASK = CompactMask(np.zeros((0, 0), np.uint8), row=0, column=0, width=0, area=0, centre=(0.0, 0.0))
"""An empty mask, of a frame of any size."""

# Of the objects of Python that a mask consists of.
_OVERHEAD_BYTES = 1024
