"""The colours of objects, and masks tinted with them: the same in overlays, on the prompt page and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from aot.drawing.style import OverlayStyle
from aot.types import LOWEST_OBJECT_ID, BoolArray, UInt8Array

# The palette of Okabe and Ito, which remains distinguishable with colour blindness. The first colour
# stands out in most scenes.
OBJECT_COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
)

# As a fraction of the image diagonal.
_OUTLINE_THICKNESS = 1 / 500
# In px, less than the thickness.
_OUTLINE_TOLERANCE = 0.7


def object_colour(object_id: int) -> tuple[int, int, int]:
    """RGB colour of an object."""
    return OBJECT_COLOURS[(object_id - LOWEST_OBJECT_ID) % len(OBJECT_COLOURS)]


def tint(image: UInt8Array, masks: BoolArray, object_ids: Sequence[int], style: OverlayStyle | None = None) -> None:
    """Tint the masked pixels of an image in place, and outline each mask in the full colour of its object.

    Args:
        image: (H, W, 3) uint8 RGB, changed in place.
        masks: (K, H, W) bool.
        object_ids: the K object ids.
        style: its `tint` and `outline`; None: the defaults.
    """
    style = style or OverlayStyle()
    for object_id, mask in zip(object_ids, masks):
        shape = np.ascontiguousarray(mask).view(np.uint8)
        x, y, width, height = cv2.boundingRect(shape)
        if not width:
            continue
        colour = object_colour(object_id)
        part, inside = image[y : y + height, x : x + width], shape[y : y + height, x : x + width]
        if style.tint:
            solid = _solid(colour, image.shape[0], image.shape[1])[:height, :width]
            cv2.copyTo(cv2.addWeighted(part, 1 - style.tint, solid, style.tint, 0), inside, part)
        if style.outline:
            outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x, y))
            # Fewer points are drawn faster, and hide the steps of the pixels.
            outlines = [cv2.approxPolyDP(outline, _OUTLINE_TOLERANCE, True) for outline in outlines]
            thickness = max(1, round(math.hypot(*image.shape[:2]) * _OUTLINE_THICKNESS))
            cv2.drawContours(image, outlines, -1, colour, thickness, cv2.LINE_AA)


@lru_cache(maxsize=len(OBJECT_COLOURS))
def _solid(colour: tuple[int, int, int], height: int, width: int) -> UInt8Array:
    """An image of one colour, (height, width, 3)."""
    return np.full((height, width, 3), colour, np.uint8)
