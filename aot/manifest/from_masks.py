"""Create prompts from annotated masks."""

from __future__ import annotations

from typing import Literal

import numpy as np

from aot.types import BoolArray, MaskFile, Prompt, RleMask

PromptKind = Literal["mask", "box", "points"]
"""The kind of prompt to create from an annotated mask."""


def mask_prompt(
    object_id: int, frame: int, file: MaskFile | RleMask, mask: BoolArray, kind: PromptKind, name: str = ""
) -> Prompt:
    """Create a prompt from an annotated mask: the mask itself, its bounding box, or a few points inside it.

    Args:
        object_id: ≥ 1.
        frame: source frame of the mask.
        file: reference to the mask, stored in a mask prompt and read when the clip is processed.
        mask: (H, W) bool, not empty.
        kind: kind of the prompt.
        name: name of the object.
    """
    if kind == "mask":
        return Prompt(object_id=object_id, frame=frame, name=name, mask=file)
    if kind == "points":
        points = points_inside(mask)
        return Prompt(object_id=object_id, frame=frame, name=name, points=points, labels=(1,) * len(points))
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return Prompt(object_id=object_id, frame=frame, name=name, box=box)


def points_inside(mask: BoolArray, max_points: int = 3) -> tuple[tuple[float, float], ...]:
    """A few points inside a mask, where a person would click.

    The first point is the one farthest from the outline; the others are far from the previous ones.

    Args:
        mask: (H, W) bool with at least one pixel set.
    Returns:
        1 to `max_points` points (x, y) px.
    """
    import cv2

    remaining = np.pad(mask.astype(np.uint8), 1)
    points: list[tuple[float, float]] = []
    while len(points) < max_points and remaining.any():
        depth = cv2.distanceTransform(remaining, cv2.DIST_L2, 5)
        y, x = np.unravel_index(np.argmax(depth), depth.shape)
        points.append((float(x - 1), float(y - 1)))
        radius = 1.5 * float(depth[y, x]) + 1
        rows, columns = np.ogrid[: remaining.shape[0], : remaining.shape[1]]
        remaining[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 0
    return tuple(points)
