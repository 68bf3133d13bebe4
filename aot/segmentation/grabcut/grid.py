"""Frames and prompts at working size: GrabCut and optical flow run on frames that are scaled down."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from aot.types import BoolArray, Prompt, UInt8Array

# Margin around an object, in object sizes (square root of the area of its bounding box), that serves as its
# background; flow and GrabCut read nothing outside it.
_MARGIN = 0.4
_MIN_MARGIN_PX = 24

Window = tuple[slice, slice]
"""Rows and columns of a part of a frame."""


@dataclass(frozen=True, eq=False)
class WorkingFrame:
    """One frame at working size."""

    lab: UInt8Array
    """(h, w, 3) 8-bit Lab."""
    grey: UInt8Array
    """(h, w)."""


@dataclass(frozen=True, eq=False)
class WorkingPrompt:
    """A prompt in working px."""

    points: list[tuple[tuple[int, int], bool]]
    """((x, y), whether it lies on the object); object points of other objects are background points here."""
    box: tuple[int, int, int, int] | None
    """x0, y0, x1, y1; x1 and y1 are exclusive."""
    mask: BoolArray | None
    """(h, w)."""

    @property
    def has_object_points(self) -> bool:
        return any(is_object for _, is_object in self.points)


class WorkingGrid:
    """Conversion between source px and working px.

    Args:
        width: of the source, in px.
        height: of the source, in px.
        working_height: height in px to which taller frames are scaled down; smaller frames keep their size.
    """

    def __init__(self, width: int, height: int, working_height: int) -> None:
        scale = min(1.0, working_height / height)
        self.width, self.height = width, height
        self.working_size = max(1, round(width * scale)), max(1, round(height * scale))
        self.scale = np.array(self.working_size) / (width, height)

    def frame(self, rgb: UInt8Array) -> WorkingFrame:
        """A source frame, (H, W, 3) RGB, at working size."""
        small = resized(rgb, self.working_size)
        return WorkingFrame(
            lab=as_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2LAB)), grey=as_uint8(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
        )

    def prompt(self, prompt: Prompt, others: Sequence[Prompt]) -> WorkingPrompt:
        """A prompt in working px; object points of the `others` on the frame become background points."""
        labelled = list(zip(prompt.points, prompt.labels))
        labelled += [(p, 0) for other in others for p, label in zip(other.points, other.labels) if label]
        points = [(self._pixel(point), bool(label)) for point, label in labelled]
        mask = None
        if isinstance(prompt.mask, np.ndarray):
            coverage = resized(prompt.mask.astype(np.uint8) * 255, self.working_size)
            # A mask thinner than a working pixel must not vanish.
            mask = coverage > 127 if (coverage > 127).any() else coverage > 0
        box = None
        if prompt.box is not None:
            (x0, y0), (x1, y1) = self._pixel(prompt.box[:2]), self._pixel(prompt.box[2:])
            box = (x0, y0, x1 + 1, y1 + 1)
        return WorkingPrompt(points, box, mask)

    def enlarge(self, mask: BoolArray) -> BoolArray:
        """A mask at source size. Linear, so that masks that are disjoint here are disjoint there.

        Two such masks add up to 255 at most, 257 after rounding: they cannot both exceed 128.
        """
        source = cv2.resize(mask.astype(np.uint8) * 255, (self.width, self.height), interpolation=cv2.INTER_LINEAR)
        return np.asarray(source > 128, np.bool_)

    def _pixel(self, xy: Sequence[float]) -> tuple[int, int]:
        # Half a pixel: centres lie at integers on both grids.
        x, y = np.clip(np.rint((np.asarray(xy) + 0.5) * self.scale - 0.5), 0, np.array(self.working_size) - 1)
        return int(x), int(y)


def window_of(mask: BoolArray) -> Window:
    """The mask's bounding box with a margin around it; the full frame where the mask is empty."""
    if not mask.any():
        return slice(None), slice(None)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    margin = max(_MIN_MARGIN_PX, round(_MARGIN * math.sqrt(np.ptp(rows) * np.ptp(columns))))
    return clipped(rows[0] - margin, rows[-1] + 1 + margin, len(mask)), clipped(
        columns[0] - margin, columns[-1] + 1 + margin, mask.shape[1]
    )


def clipped(start: float, stop: float, size: int) -> slice:
    """The part of start..stop that lies in 0..size."""
    return slice(max(0, int(start)), min(size, int(stop)))


def resized(image: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """An image at `size` (width, height), by averaging."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return as_uint8(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def as_uint8(array: object) -> UInt8Array:
    return np.asarray(array, np.uint8)
