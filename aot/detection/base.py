"""The detector: a frame and words in, boxes (and masks) with scores out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from aot.system.array_fields import ArrayFields
from aot.types import BoolArray, Float32Array, Int64Array, UInt8Array


@dataclass(frozen=True, eq=False, repr=False)
class Detections(ArrayFields):
    """What a detector has found on one frame."""

    boxes: Float32Array
    """(N, 4) x0, y0, x1, y1 px of the frame; a box may end at the outer edge of the last pixel."""
    scores: Float32Array
    """(N,) 0..1, in any order."""
    masks: BoolArray | None = None
    """(N, H, W); None: the model has only boxes."""
    best_score: float | None = None
    """The best score on the frame, also of boxes that were left out; None: the model has found nothing at all."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("boxes", np.float32, ("N", 4), sizes)
        self._check("scores", np.float32, ("N",), sizes)
        if self.masks is not None:
            self._check("masks", np.bool_, ("N", "H", "W"), sizes)

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, rows: Int64Array) -> Detections:
        """Some of the boxes, in this order."""
        return replace(
            self,
            boxes=self.boxes[rows],
            scores=self.scores[rows],
            masks=None if self.masks is None else self.masks[rows],
        )


class Detector(Protocol):
    """Finds objects by words. One instance serves many clips, one after another."""

    min_score: float
    """The lowest score of a box that shows the object, 0..1, unless a prompt has its own."""
    max_overlap: float
    """Boxes of one description that overlap more than this (intersection over union) show the same object."""

    @property
    def model_name(self) -> str:
        """The name of the model, as results record it."""
        ...

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        """Find the objects that a text describes.

        Args:
            rgb: (H, W, 3) frame.
            text: such as "red mug".
            min_score: boxes with a lower score are left out.
        Returns:
            Boxes within the frame, at least 1 px wide and high, which may overlap.
        Raises:
            OutOfMemory: memory ran out.
        """
        ...


@runtime_checkable
class ReleasesModel(Protocol):
    """A detector that can free the memory of its model, which is loaded again on its next use. Optional."""

    def release(self) -> None:
        """Free the memory; called where the models after it need all of it."""
        ...


def inside_frame(found: Detections, width: int, height: int) -> Detections:
    """Clip boxes to the frame, and leave out those of which less than a pixel remains.

    Args:
        found: boxes of a model.
        width, height: of the frame, px.
    """
    boxes = np.clip(found.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    is_visible = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    return replace(found, boxes=boxes).take(np.flatnonzero(is_visible))


def merge_overlapping(found: Detections, max_overlap: float) -> Detections:
    """Keep the best of boxes that show the same object (non-maximum suppression); the best score comes first.

    Args:
        found: on one frame, by one description.
        max_overlap: intersection over union above which two boxes show the same object, 0..1.
    """
    kept: list[int] = []
    for row in np.argsort(-found.scores, kind="stable").tolist():
        if not kept or overlaps(found.boxes[row], found.boxes[kept]).max() <= max_overlap:
            kept.append(row)
    return found.take(np.array(kept, dtype=np.int64))


def overlaps(box: Float32Array, others: Float32Array) -> Float32Array:
    """(N,) intersection over union of a box, (4,), with others, (N, 4)."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(common / np.maximum(areas - common, np.finfo(np.float32).tiny), dtype=np.float32)
