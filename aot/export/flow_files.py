"""Files of dense optical flow: Middlebury's `.flo`, KITTI's 16-bit PNG, and colours to look at."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from aot.export.dense_flow import FlowField
from aot.types import Float32Array, Float64Array, UInt8Array

_FLO_TAG = b"PIEH"
# Middlebury: components above 1e9 are unknown.
_FLO_UNKNOWN = 1e10
_KITTI_ZERO, _KITTI_STEP = 2**15, 64
KITTI_MAX_PX = (2**15 - 1) / _KITTI_STEP
# Lengths of the transitions between the colours red, yellow, green, cyan, blue, magenta and red.
_WHEEL = (15, 6, 4, 11, 13, 6)


def write_flo(path: Path, field: FlowField) -> None:
    """Write a `.flo` file; pixels that are not valid are unknown."""
    height, width = field.valid.shape
    values = np.where(field.valid[..., None], field.flow, np.float32(_FLO_UNKNOWN)).astype("<f4")
    path.write_bytes(_FLO_TAG + np.array([width, height], dtype="<i4").tobytes() + values.tobytes())


def write_kitti(path: Path, field: FlowField) -> None:
    """Write a 16-bit PNG: red and green are 2¹⁵ + 64 · (x, y), blue is 1 where the pixel is valid.

    A pixel that moves by 512 px or more does not fit, and is written as not valid.
    """
    # Only the pixels of objects are computed: they are often few.
    y, x = np.nonzero(field.valid)
    flow = field.flow[y, x]
    fits = np.abs(flow).max(axis=1, initial=0) <= KITTI_MAX_PX
    coded = np.rint(flow[fits, ::-1] * _KITTI_STEP) + _KITTI_ZERO
    image = np.zeros((*field.valid.shape, 3), dtype=np.uint16)
    image[y[fits], x[fits]] = np.column_stack([np.ones(len(coded)), coded])  # OpenCV: blue, green, red
    _write_png(path, image)


def write_npz(path: Path, field: FlowField) -> None:
    """Write `flow` (H, W, 2) float32, NaN where it is not valid, and `valid` (H, W) bool."""
    flow = np.where(field.valid[..., None], field.flow, np.float32(np.nan))
    with path.open("wb") as file:
        np.savez_compressed(file, flow=flow, valid=field.valid)


def write_colours(path: Path, field: FlowField, max_px: float) -> None:
    """Write the flow as colours: the hue is its direction, the saturation its length up to `max_px`; black: none."""
    image = np.zeros((*field.valid.shape, 3), dtype=np.uint8)
    image[field.valid] = flow_colours(field.flow[field.valid], max_px)[:, ::-1]
    _write_png(path, image)


def flow_colours(flow: Float32Array, max_px: float) -> UInt8Array:
    """(…, 3) RGB colours of flow (…, 2), in the code of Baker et al., as in flow_vis.

    Source: Baker et al., A Database and Evaluation Methodology for Optical Flow (2011).
    """
    wheel = _wheel()
    x, y = np.moveaxis(flow.astype(np.float64) / max(max_px, 1e-6), -1, 0)
    length = np.hypot(x, y)[..., None]
    position = (np.arctan2(-y, -x) / np.pi + 1) / 2 * (len(wheel) - 1)
    low = np.floor(position).astype(np.int64)
    part = (position - low)[..., None]
    colour = (1 - part) * wheel[low] + part * wheel[(low + 1) % len(wheel)]
    # Short vectors are pale, those that are too long are darker.
    colour = np.where(length <= 1, 1 - length * (1 - colour), colour * 0.75)
    return np.asarray(np.floor(255 * colour), dtype=np.uint8)


def _wheel() -> Float64Array:
    """(55, 3) RGB colours in 0..1 of directions: red, yellow, green, cyan, blue, magenta."""
    corners = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], dtype=np.float64)
    parts = [
        corners[i] + (corners[i + 1] - corners[i]) * np.arange(length)[:, None] / length
        for i, length in enumerate(_WHEEL)
    ]
    return np.concatenate(parts)


def _write_png(path: Path, image: np.ndarray) -> None:
    encoded, data = cv2.imencode(".png", image)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode {path.name}")
    path.write_bytes(data.tobytes())
