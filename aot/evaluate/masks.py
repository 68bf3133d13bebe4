"""Scores of masks: region similarity J and contour accuracy F, as in the DAVIS toolkit.

Source: Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016;
Pont-Tuset et al., "The 2017 DAVIS Challenge" (arXiv:1704.00675) and its toolkit davis2017-evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from aot.types import BoolArray, UInt8Array

BOUNDARY_TOLERANCE = 0.008
"""Maximum distance of a contour pixel from the true contour, as a fraction of the frame diagonal."""

_RECALL_THRESHOLD = 0.5
_DECAY_QUARTERS = 4


@dataclass(frozen=True)
class Series:
    """One measure of one object over its frames."""

    mean: float
    recall: float
    """Fraction of frames above 0.5."""
    decay: float
    """Mean over the first quarter of the frames minus the mean over the last."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Series:
        """Statistics of one value per frame, in ascending order; at least one."""
        array = np.asarray(values)
        # Adjacent quarters share a frame, as in the toolkit.
        ends = np.round(np.linspace(1, len(array), _DECAY_QUARTERS + 1) + 1e-10).astype(np.int64) - 1
        decay = array[ends[0] : ends[1] + 1].mean() - array[ends[-2] : ends[-1] + 1].mean()
        return cls(float(array.mean()), float((array > _RECALL_THRESHOLD).mean()), float(decay))


@dataclass(frozen=True)
class MaskScore:
    """Scores of one object's masks."""

    region: Series
    """J."""
    contour: Series
    """F."""
    num_frames: int
    """Number of scored frames: the annotated frames of the object except the first and the last."""

    @property
    def mean(self) -> float:
        """J&F."""
        return (self.region.mean + self.contour.mean) / 2


def region_similarity(mask: BoolArray, truth: BoolArray) -> float:
    """J: intersection over union of two masks of one frame; 1 when both are empty.

    Args:
        mask, truth: (H, W) bool.
    """
    _check_sizes("region_similarity", mask, truth)
    union = np.count_nonzero(mask | truth)
    return 1.0 if union == 0 else np.count_nonzero(mask & truth) / union


def contour_accuracy(mask: BoolArray, truth: BoolArray) -> float:
    """F: harmonic mean of the precision and recall of contour pixels within the tolerance; 1 when both are empty.

    Args:
        mask, truth: (H, W) bool.
    """
    import cv2

    _check_sizes("contour_accuracy", mask, truth)
    radius = int(np.ceil(BOUNDARY_TOLERANCE * np.linalg.norm(mask.shape)))
    window = _window(mask | truth, margin=radius + 1)
    contour, true_contour = _contour(mask[window]), _contour(truth[window])
    num_pixels, num_true = np.count_nonzero(contour), np.count_nonzero(true_contour)
    if num_pixels == 0 or num_true == 0:
        return 1.0 if num_pixels == num_true else 0.0
    precision = np.count_nonzero(contour & cv2.dilate(true_contour, _disk(radius))) / num_pixels
    recall = np.count_nonzero(true_contour & cv2.dilate(contour, _disk(radius))) / num_true
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _check_sizes(name: str, mask: BoolArray, truth: BoolArray) -> None:
    if mask.shape != truth.shape:
        raise ValueError(f"{name}: got masks {mask.shape} and {truth.shape}, expected the same size")


def _window(mask: BoolArray, margin: int) -> tuple[slice, slice]:
    """Bounding window of a mask plus a margin: nothing outside can match, and most of a frame is outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return (
        slice(max(0, rows[0] - margin), rows[-1] + 1 + margin),
        slice(max(0, columns[0] - margin), columns[-1] + 1 + margin),
    )


def _contour(mask: BoolArray) -> UInt8Array:
    """Contour pixels as 1: pixels that differ from their neighbour to the right, below, or diagonally below right.

    Pixels of the last row and column are compared along the frame edge only; the bottom right pixel is never a
    contour pixel.
    """
    contour = np.zeros(mask.shape, dtype=np.bool_)
    contour[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    contour[:-1] |= mask[:-1] != mask[1:]
    contour[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return contour.view(np.uint8)


@lru_cache(maxsize=8)
def _disk(radius: int) -> UInt8Array:
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    return np.asarray(x**2 + y**2 <= radius**2, dtype=np.uint8)
