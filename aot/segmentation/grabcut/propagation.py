"""Propagation of masks from frame to frame by dense optical flow, and resolution of overlaps between objects.

Source: DIS flow, arXiv:1603.03590.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from aot.segmentation.grabcut.colour_model import CERTAIN, Histograms, blend, histograms, log_odds
from aot.segmentation.grabcut.grid import WorkingFrame, WorkingGrid, as_uint8, window_of
from aot.segmentation.grabcut.trimap import grabcut, trimap_of_evidence
from aot.types import BoolArray, Float32Array, UInt8Array

# Weight of the last frames' colours against those of the prompt frame.
_RECENT_WEIGHT = 0.5
_MIN_FLOW_SIZE_PX = 32
# On propagated frames a window of more pixels than this is cut at a smaller size: a large object does not need the
# detail that a small one needs. Camel of DAVIS: 39 ms of one core per frame instead of 100.
_MAX_PIXELS = 20000


@dataclass(frozen=True, eq=False)
class ObjectState:
    """What is kept of one object after a frame."""

    mask: BoolArray
    """(h, w) on that frame."""
    prompted: Histograms
    """Colours of object and surroundings on the prompt frame: these do not drift."""
    recent: Histograms
    """The same, averaged over the last frames: these adapt to light and pose."""


@dataclass(frozen=True, eq=False)
class Claim:
    """The pixels that one object claims on a frame, before overlaps are resolved."""

    mask: BoolArray
    """(h, w)."""
    evidence: Float32Array
    """(h, w) log odds that a pixel belongs to the object; resolves overlaps and gives the score."""

    def score(self, mask: BoolArray) -> float:
        """Mean probability over the pixels of `mask`, (h, w), in 0..1; 0 for an empty mask."""
        if not mask.any():
            return 0.0
        return float(np.mean(1 / (1 + np.exp(-self.evidence[mask]))))


def claim_propagated(previous: WorkingFrame, frame: WorkingFrame, state: ObjectState, iterations: int) -> Claim:
    """Find on `frame` an object whose state on the previous frame is known.

    Args:
        previous: the frame processed before; it may come later in the clip.
        frame: of the same size.
        state: the object after `previous`.
        iterations: of GrabCut.
    """
    expected = _propagate(previous, frame, state.mask)
    if not expected.any():
        return Claim(expected, np.full(expected.shape, -CERTAIN, np.float32))
    evidence = log_odds(frame, expected, blend(state.prompted, state.recent, _RECENT_WEIGHT))
    return Claim(grabcut(frame.lab, trimap_of_evidence(evidence), iterations, _MAX_PIXELS), evidence)


def updated(frame: WorkingFrame, mask: BoolArray, state: ObjectState | None, memory: float) -> ObjectState:
    """The state of an object after a frame.

    Args:
        frame: the frame, h x w px.
        mask: (h, w) the object's final mask on it.
        state: after the previous frame; None: all colours come from this frame.
        memory: weight of this frame in the running colour histograms, in (0, 1].
    """
    if state is None:
        colours = histograms(frame, mask)
        return ObjectState(mask, prompted=colours, recent=colours)
    if not mask.any():
        return replace(state, mask=mask)
    return replace(state, mask=mask, recent=blend(state.recent, histograms(frame, mask), memory))


def resolve_overlaps(claims: Mapping[int, Claim], prompted: set[int]) -> dict[int, BoolArray]:
    """Assign every pixel to at most one object.

    Objects prompted on this frame precede propagated ones, small ones precede large ones: a box around the large one
    also holds the small one. Among propagated objects the evidence decides.

    Args:
        claims: by object id.
        prompted: ids of the objects prompted on this frame.
    Returns:
        (h, w) masks by object id, ascending.
    """
    taken: BoolArray | None = None
    masks: dict[int, BoolArray] = {}
    for i in sorted(prompted, key=lambda i: np.count_nonzero(claims[i].mask)):
        masks[i] = claims[i].mask if taken is None else claims[i].mask & ~taken
        taken = masks[i] if taken is None else taken | masks[i]
    propagated = [i for i in claims if i not in prompted]
    if propagated:
        evidence = np.stack([np.where(claims[i].mask, claims[i].evidence, -np.inf) for i in propagated])
        best = evidence.argmax(0)
        for row, i in enumerate(propagated):
            masks[i] = claims[i].mask & (best == row)
            if taken is not None:
                masks[i] &= ~taken
    return {i: masks[i] for i in sorted(masks)}


def pack_union(masks: Iterable[BoolArray], grid: WorkingGrid) -> UInt8Array:
    """The union of (h, w) masks at one bit per pixel."""
    union = np.zeros(grid.working_size[::-1], np.bool_)
    for mask in masks:
        union |= mask
    return np.packbits(union)


def unpack(bits: UInt8Array, grid: WorkingGrid) -> BoolArray:
    """The (h, w) mask that `pack_union` packed."""
    width, height = grid.working_size
    return np.unpackbits(bits, count=width * height).reshape(height, width).astype(np.bool_)


def optical_flow(start: UInt8Array, end: UInt8Array) -> Float32Array:
    """(h, w, 2) displacement in px of each pixel of `start`, (h, w) grey, to its position in `end`."""
    # A new instance per call: a used one keeps settings chosen for an earlier image size (flows differ by up to 7 px).
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    height, width = start.shape
    flow = dis.calc(_padded(start), _padded(end), None)
    return np.asarray(flow[:height, :width], np.float32)


def _padded(grey: UInt8Array) -> UInt8Array:
    """An image large enough for DIS flow, which crashes the process below 12 px instead of raising an error."""
    below, right = (max(0, _MIN_FLOW_SIZE_PX - size) for size in grey.shape)
    return as_uint8(cv2.copyMakeBorder(grey, 0, below, 0, right, cv2.BORDER_REPLICATE))


def _propagate(previous: WorkingFrame, frame: WorkingFrame, mask: BoolArray) -> BoolArray:
    """Move a mask from one frame to the next along the flow."""
    moved_mask = np.zeros_like(mask)
    if not mask.any():
        return moved_mask
    window = window_of(mask)
    # From the new frame to the old one, so that every new pixel looks up where it came from.
    flow = optical_flow(frame.grey[window], previous.grey[window])
    inside = mask[window].astype(np.float32)
    height, width = inside.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = cv2.remap(inside, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)
    moved_mask[window] = moved > 0.5
    return moved_mask
