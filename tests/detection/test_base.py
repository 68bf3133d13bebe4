"""What all detectors share: boxes within the frame, and one box per object."""

from __future__ import annotations

import numpy as np
import pytest

from aot.detection.base import Detections, inside_frame, merge_overlapping, overlaps


def detections(*boxes: tuple[float, float, float, float], scores: list[float], masks: bool = False) -> Detections:
    return Detections(
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.array(scores, dtype=np.float32),
        masks=np.arange(len(boxes))[:, None, None] == np.arange(4)[None, :, None] if masks else None,
    )


def test_the_best_of_overlapping_boxes_is_kept() -> None:
    # The second overlaps the first by 1/3, the third by 9/11, and the second by 40/160.
    found = detections((0, 0, 10, 10), (5, 0, 15, 10), (1, 0, 11, 10), scores=[0.6, 0.5, 0.9])
    merged = merge_overlapping(found, 0.5)
    assert merged.scores.tolist() == pytest.approx([0.9, 0.5])
    assert merged.boxes.tolist() == [[1, 0, 11, 10], [5, 0, 15, 10]]
    assert len(merge_overlapping(found, 0.3)) == 1
    assert len(merge_overlapping(found, 0.9)) == 3


def test_a_box_is_compared_with_the_kept_ones_only() -> None:
    # The middle box is merged into the first; the last one overlaps only the middle one.
    found = detections((0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10), scores=[0.9, 0.8, 0.7])
    assert merge_overlapping(found, 0.4).boxes[:, 0].tolist() == [0, 8]


def test_masks_stay_with_their_boxes() -> None:
    merged = merge_overlapping(detections((0, 0, 9, 9), (20, 0, 29, 9), scores=[0.1, 0.2], masks=True), 0.5)
    assert merged.masks is not None
    assert [int(np.flatnonzero(mask.any(axis=1))[0]) for mask in merged.masks] == [1, 0]


def test_no_boxes() -> None:
    assert len(merge_overlapping(detections(scores=[]), 0.5)) == 0


def test_overlap_of_apart_and_of_equal_boxes() -> None:
    box = np.array([0, 0, 4, 2], dtype=np.float32)
    others = np.array([[0, 0, 4, 2], [4, 0, 8, 2], [2, 0, 6, 2], [9, 9, 9, 9]], dtype=np.float32)
    assert overlaps(box, others).tolist() == pytest.approx([1, 0, 1 / 3, 0])


def test_boxes_are_clipped_and_those_outside_left_out() -> None:
    found = detections(
        (-3, 2, 200, 9), (96.5, 0, 120, 9), (5, 5, 5.5, 9), (95, 63, 120, 70), scores=[0.4, 0.3, 0.2, 0.1]
    )
    inside = inside_frame(found, 96, 64)
    assert inside.boxes.tolist() == [[0, 2, 96, 9], [95, 63, 96, 64]]
    assert inside.scores.tolist() == pytest.approx([0.4, 0.1])


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"Detections\.scores: got \(2,\)"):
        detections((0, 0, 1, 1), scores=[0.1, 0.2])
