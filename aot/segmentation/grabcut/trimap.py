"""GrabCut on a trimap: the pixels that are certainly object, certainly background, or left to GrabCut.

Source: GrabCut, Rother et al. 2004.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from aot.segmentation.grabcut.grid import WorkingFrame, WorkingPrompt, as_uint8, clipped, resized, window_of
from aot.types import BoolArray, Float32Array, UInt8Array

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in working px; x1 and y1 are exclusive."""

# Log odds up to which GrabCut may decide otherwise.
_UNCERTAIN_ODDS = 1.0
# A clicked point marks a disc of this radius, in object sizes (square root of the area).
_DISC_RADIUS = 0.08
# Around points without a box the object is searched for within this fraction of the frame's height.
_POINT_REACH = 0.2
# A correction adds or removes the pixels around a point whose colour, blurred, differs by at most this (8-bit Lab) from
# the median within the radius around the point.
_CLICK_COLOUR = 14.0
_CLICK_BLUR_PX = 1.0
_CLICK_RADIUS_PX = 2.0
# The ring around a box is as wide as this fraction of the box, on every side.
_RING_WIDTH = 0.3
# A pixel of the box whose colour is found in the ring within this distance (8-bit Lab) starts as background.
_SAME_COLOUR = 3.0
# Where less than this fraction of the box differs from the ring, colours do not discriminate and the full box is used.
_MIN_DISTINCT_FRACTION = 0.05
# A mask shorter or narrower than this fraction of its box is only a part of the object: the full box is tried then.
_MIN_EXTENT = 0.7
_MAX_RING_SAMPLES = 3000
# GrabCut fits mixtures of this many colours to object and to background.
_GRABCUT_COLOURS = 5
_GRABCUT_MODEL_SIZE = 13 * _GRABCUT_COLOURS


def segment_prompt(
    frame: WorkingFrame, prompt: WorkingPrompt, propagated: BoolArray | None, iterations: int
) -> BoolArray:
    """The mask of an object on its prompt frame.

    Args:
        frame: the prompt frame, h x w px.
        prompt: points, a box, or both.
        propagated: (h, w) where the object was expected on this frame; None: not seen before.
        iterations: of GrabCut.
    Returns:
        (h, w).
    """

    def cut(trimap: UInt8Array) -> BoolArray:
        _mark_points(trimap, prompt)
        return grabcut(frame.lab, trimap, iterations)

    if prompt.box is None and propagated is not None and propagated.any():
        mask = cut(_trimap_of_correction(frame, prompt, propagated))
        return _parts_with(mask, propagated | _at_clicks(prompt, mask.shape))
    else:
        box = prompt.box or _box_around_points(prompt, frame)
        mask = cut(_trimap_of_box(frame, box, exclude_ring_colours=True))
        if prompt.box is not None and not _fills(mask, box):
            mask = cut(_trimap_of_box(frame, box, exclude_ring_colours=False))
    if prompt.box is None and prompt.has_object_points:
        mask = _clicked_parts(mask, prompt)
    return mask


def trimap_of_evidence(evidence: Float32Array) -> UInt8Array:
    """The trimap of (h, w) log odds: GrabCut decides where they are near 0."""
    trimap = np.where(evidence > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[evidence > _UNCERTAIN_ODDS] = cv2.GC_FGD
    trimap[evidence < -_UNCERTAIN_ODDS] = cv2.GC_BGD
    return trimap


def grabcut(lab: UInt8Array, trimap: UInt8Array, iterations: int, max_pixels: int | None = None) -> BoolArray:
    """GrabCut within the window of all pixels that are not certain background.

    Args:
        lab: (h, w, 3) 8-bit Lab.
        trimap: (h, w) of OpenCV's GC_ values.
        iterations: of GrabCut, ≥ 1.
        max_pixels: a larger window is scaled down to this many pixels; None: never.
    Returns:
        (h, w) the mask.
    """
    result: BoolArray = (trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)
    if not result.any():
        return result
    window = window_of(trimap != cv2.GC_BGD)
    wanted = trimap[window]
    height, width = wanted.shape
    scale = min(1.0, math.sqrt((max_pixels or wanted.size) / wanted.size))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    labels = as_uint8(cv2.resize(wanted, size, interpolation=cv2.INTER_NEAREST))
    num_object = np.count_nonzero((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD))
    if min(num_object, labels.size - num_object) < _GRABCUT_COLOURS:
        return result
    # GrabCut draws from OpenCV's global random state: with a fixed seed its result does not depend on earlier calls.
    cv2.setRNGSeed(0)
    models = np.zeros((1, _GRABCUT_MODEL_SIZE)), np.zeros((1, _GRABCUT_MODEL_SIZE))
    cv2.grabCut(resized(lab[window].copy(), size), labels, None, *models, iterations, cv2.GC_INIT_WITH_MASK)
    found = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.uint8) * 255
    found = cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR)
    # Certain pixels of the trimap stay as they are, whatever the coarser grid gives.
    result[window] = ((found > 127) & (wanted != cv2.GC_BGD)) | (wanted == cv2.GC_FGD)
    return result


def _trimap_of_box(frame: WorkingFrame, box: Box, exclude_ring_colours: bool) -> UInt8Array:
    """Certain background outside the box; inside, probable object, or only what differs from the ring around the box.

    GrabCut converges to the nearest local optimum: started from the full box it keeps whatever background the box
    holds (mean IoU 0.73 instead of 0.78 on 12 DAVIS clips).
    """
    x0, y0, x1, y1 = box
    height, width = frame.grey.shape
    trimap = np.full((height, width), cv2.GC_BGD, np.uint8)
    trimap[y0:y1, x0:x1] = cv2.GC_PR_FGD
    ring = np.zeros((height, width), np.bool_)
    ring_x, ring_y = _RING_WIDTH * (x1 - x0), _RING_WIDTH * (y1 - y0)
    ring[clipped(y0 - ring_y, y1 + ring_y, height), clipped(x0 - ring_x, x1 + ring_x, width)] = True
    ring[y0:y1, x0:x1] = False
    around = frame.lab[ring].astype(np.float32)
    if exclude_ring_colours and len(around):
        sample = around[:: -(-len(around) // _MAX_RING_SAMPLES)]
        inside = frame.lab[y0:y1, x0:x1].reshape(-1, 3).astype(np.float32)
        nearest = [match.distance for match in cv2.BFMatcher(cv2.NORM_L2).match(inside, sample)]
        in_ring = np.reshape(nearest, (y1 - y0, x1 - x0)) <= _SAME_COLOUR
        if np.count_nonzero(~in_ring) > _MIN_DISTINCT_FRACTION * in_ring.size:
            trimap[y0:y1, x0:x1][in_ring] = cv2.GC_PR_BGD
    return trimap


def _trimap_of_correction(frame: WorkingFrame, prompt: WorkingPrompt, propagated: BoolArray) -> UInt8Array:
    """The expected mask with the parts around the points added or removed; GrabCut decides in the window of all.

    The disc that a point marks is not enough: GrabCut would keep the colours of the expected mask, and the next frame
    would undo the correction.
    """
    expected = propagated.copy()
    for point, is_object in sorted(prompt.points, key=lambda item: item[1], reverse=True):
        if is_object == expected[point[1], point[0]]:
            continue
        part = _part_around(frame, point, prompt)
        expected = expected | part if is_object else expected & ~part
    trimap = np.full(propagated.shape, cv2.GC_BGD, np.uint8)
    trimap[window_of(propagated | expected)] = cv2.GC_PR_BGD
    trimap[expected] = cv2.GC_PR_FGD
    return trimap


def _part_around(frame: WorkingFrame, point: tuple[int, int], prompt: WorkingPrompt) -> BoolArray:
    """The pixels of one colour around a point, connected to it, and not nearer to a point with the other label."""
    height, width = frame.grey.shape
    x, y = point
    reach = max(1, round(_POINT_REACH * height))
    area = clipped(y - reach, y + reach + 1, height), clipped(x - reach, x + reach + 1, width)
    lab = cv2.GaussianBlur(frame.lab, (0, 0), _CLICK_BLUR_PX)[area].astype(np.float32)
    rows, columns = np.mgrid[area].astype(np.float32)
    distance = np.hypot(columns - x, rows - y)
    (label,) = {is_object for other, is_object in prompt.points if other == point}
    others = [other for other, is_object in prompt.points if is_object != label]
    nearest = [np.hypot(columns - other_x, rows - other_y) for other_x, other_y in others]
    colour = np.median(lab[distance <= _CLICK_RADIUS_PX], axis=0)
    similar = np.linalg.norm(lab - colour, axis=2) <= _CLICK_COLOUR
    if nearest:
        similar &= distance < np.min(nearest, axis=0)
    similar[distance == 0] = True
    _, parts = cv2.connectedComponents(similar.astype(np.uint8), connectivity=4)
    part = np.zeros((height, width), np.bool_)
    part[area] = parts == parts[distance == 0]
    return part


def _at_clicks(prompt: WorkingPrompt, shape: tuple[int, ...]) -> BoolArray:
    """(h, w) the clicked object points."""
    clicks = np.zeros(shape, np.bool_)
    for (x, y), is_object in prompt.points:
        clicks[y, x] = is_object
    return clicks


def _fills(mask: BoolArray, box: Box) -> bool:
    """Whether a mask extends over most of its box; people draw boxes tightly."""
    x0, y0, x1, y1 = box
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return False
    return bool(np.ptp(rows) + 1 >= _MIN_EXTENT * (y1 - y0) and np.ptp(columns) + 1 >= _MIN_EXTENT * (x1 - x0))


def _box_around_points(prompt: WorkingPrompt, frame: WorkingFrame) -> Box:
    """The area in which to search for an object that is prompted by points only."""
    height, width = frame.grey.shape
    reach = max(1, round(_POINT_REACH * height))
    xy = np.array([point for point, is_object in prompt.points if is_object] or [point for point, _ in prompt.points])
    (x0, y0), (x1, y1) = np.maximum(xy.min(0) - reach, 0), xy.max(0) + reach + 1
    return int(x0), int(y0), int(min(x1, width)), int(min(y1, height))


def _mark_points(trimap: UInt8Array, prompt: WorkingPrompt) -> None:
    """Make the discs around clicked points certain, whatever the trimap holds there."""
    num_object = np.count_nonzero(trimap == cv2.GC_PR_FGD)
    radius = max(1, round(_DISC_RADIUS * float(np.sqrt(num_object))))
    for point, is_object in sorted(prompt.points, key=lambda item: item[1]):
        cv2.circle(trimap, point, radius, cv2.GC_FGD if is_object else cv2.GC_BGD, cv2.FILLED)
    for (x, y), is_object in prompt.points:
        trimap[y, x] = cv2.GC_FGD if is_object else cv2.GC_BGD


def _clicked_parts(mask: BoolArray, prompt: WorkingPrompt) -> BoolArray:
    """The connected parts of a mask that contain a click: without a box nothing relates the others to the object."""
    return _parts_with(mask, _at_clicks(prompt, mask.shape))


def _parts_with(mask: BoolArray, pixels: BoolArray) -> BoolArray:
    """The connected parts of a mask that contain any of the pixels."""
    _, parts = cv2.connectedComponents(mask.astype(np.uint8))
    return np.asarray(np.isin(parts, np.unique(parts[mask & pixels])), np.bool_)
