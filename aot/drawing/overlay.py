"""The overlay: masks and tracks drawn over the source video.

Tracks are drawn as in CoTracker's demo: a point keeps one colour, taken from a rainbow over the heights of the query
points (or that of its object); it is a disc while visible and a ring while hidden, and leaves a short fading trail.
Objects are tinted in their own colours. Frames are streamed: one is drawn while the encoder works on earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np

from aot.decoding.base import FrameSource
from aot.drawing.colours import object_colour, tint
from aot.drawing.style import OverlayStyle
from aot.drawing.video_writer import VideoWriter
from aot.system.files import replacing
from aot.types import BoolArray, Float32Array, Float64Array, QueryPoints, Tracks, UInt8Array

# As a fraction of the image height, and the minimum in px: smaller text cannot be read.
_LABEL_HEIGHT, _MIN_LABEL_HEIGHT = 1 / 32, 10
# As a fraction of the image diagonal; less where the discs of an object would cover more than this share of its mask.
_RADIUS, _COVERED = 1 / 250, 1 / 3
# In px: smaller discs cannot be seen.
_MIN_RADIUS = 1.0
# As a multiple of the radius. A dark rim separates discs from any background; rings have none, to be less prominent.
_RIM, _RIM_COLOUR = 1.3, (24, 24, 24)
# Opacity (of 255) at the start of a trail: the image stays visible under many trails.
_TRAIL_ALPHA = 190
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Height of the font's capital letters at scale 1, px.
_FONT_HEIGHT = 21
# OpenCV draws at 1/16 px with 4 fractional bits.
_SHIFT = 4


def write_overlay(
    path: Path,
    frames: FrameSource,
    *,
    tracks: Tracks,
    queries: QueryPoints,
    masks: Callable[[int], BoolArray | None],
    object_ids: Sequence[int],
    style: OverlayStyle | None = None,
) -> None:
    """Draw every kept frame with its masks and tracks; `path` is replaced once the video is complete.

    Args:
        path: the MP4 to write.
        frames: the T kept frames; the video has their presentation times, from 0.
        tracks: T rows of N points.
        queries: the N query points.
        masks: returns the (K, H, W) masks of a row, or None if it has none; called once per row, in ascending order.
        object_ids: the K object ids.
        style: None: the defaults. Frames with more lines than `style.max_height` are reduced to it.
    Raises:
        ValueError: `tracks` does not have one row per kept frame and one column per query point.
        WriteError: the video cannot be encoded or moved to `path`.
        DecodeError: the source cannot be read.
        OutOfMemory: memory ran out.
    """
    if len(tracks.xy) != len(frames.index) or tracks.xy.shape[1] != len(queries):
        raise ValueError(
            f"write_overlay: got tracks {tracks.xy.shape}, expected ({len(frames.index)}, {len(queries)}, 2): "
            f"one row per kept frame, one column per query point"
        )
    style = style or OverlayStyle()
    size = _Size.of(frames, style.max_height)
    points = _PointPainter(size, tracks, queries, style)
    with (
        replacing(path) as part,
        VideoWriter(
            part,
            path,
            width=size.width * (2 if style.side_by_side else 1),
            height=size.height,
            pixel_aspect=frames.pixel_aspect,
            time=frames.time,
            fps=frames.fps,
            comment=style.mark,
        ) as video,
    ):
        row = 0
        for block in frames.blocks():
            for frame, time, rgb in zip(block.index.tolist(), block.time.tolist(), block.rgb):
                original = size.of_image(rgb)
                # A block may be a view of the decoder's memory.
                image = original.copy() if original is rgb or style.side_by_side else original
                found = masks(row)
                if found is not None:
                    found = size.of_masks(found)
                    tint(image, found, object_ids, style)
                    points.fit(found, object_ids)
                points.draw(image, row)
                if style.label:
                    _label(image, f"frame {frame}   {time:.2f} s")
                video.write(np.hstack([original, image]) if style.side_by_side else image)
                row += 1


@dataclass(frozen=True)
class _Size:
    """Size of the overlay's images in px."""

    width: int
    height: int
    scale: float
    """In px of the overlay per px of the source."""

    @classmethod
    def of(cls, frames: FrameSource, max_height: int) -> _Size:
        scale = min(1.0, max_height / frames.height)
        return cls(max(1, round(frames.width * scale)), round(frames.height * scale), scale)

    def of_image(self, rgb: UInt8Array) -> UInt8Array:
        if self.scale == 1:
            return rgb
        # Averaging the source's pixels instead takes four times as long, and shows hardly more.
        return cast(UInt8Array, cv2.resize(rgb, (self.width, self.height), interpolation=cv2.INTER_LINEAR))

    def of_masks(self, masks: BoolArray) -> BoolArray:
        if self.scale == 1:
            return masks
        resized = np.empty((len(masks), self.height, self.width), dtype=np.uint8)
        for mask, target in zip(masks, resized):
            cv2.resize(
                np.ascontiguousarray(mask).view(np.uint8), (self.width, self.height), target,
                interpolation=cv2.INTER_NEAREST,
            )  # fmt: skip
        return resized.view(np.bool_)

    def of_points(self, xy: Float32Array) -> Float32Array:
        """Positions whose integers are centres of pixels."""
        return np.asarray((xy + 0.5) * self.scale - 0.5, dtype=np.float32)


def _label(image: UInt8Array, text: str) -> None:
    """Write a line of text into the lower left corner, on a darkened background; omit it if it does not fit."""
    height, width = image.shape[:2]
    size = max(_MIN_LABEL_HEIGHT, round(height * _LABEL_HEIGHT))
    scale, margin = size / _FONT_HEIGHT, size // 2 + 1
    thickness = max(1, round(scale * 1.6))
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    if text_width + 2 * margin > width or size + 2 * margin > height / 4:
        return
    background = image[height - size - 2 * margin :, : text_width + 2 * margin]
    background[:] = background // 3
    cv2.putText(image, text, (margin, height - margin), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)


# Points --------------------------------------------------------------------------------------------------------------


class _PointPainter:
    """Draws the points of one row after another, and keeps the fading trails between rows.

    Args:
        size: of the images.
        tracks: T rows of N points, in px of the source.
        queries: the N query points.
        style: colour of the points and length of the trails.
    """

    def __init__(self, size: _Size, tracks: Tracks, queries: QueryPoints, style: OverlayStyle) -> None:
        width, height = size.width, size.height
        largest = max(1.5, math.hypot(width, height) * _RADIUS)
        self._set_radius(np.full(len(queries), largest))
        self._object_id = queries.object_id
        self._is_fitted: set[int] = set()
        self._visible = tracks.visible
        by_object = style.colour == "object"
        self._colours = [object_colour(i) for i in queries.object_id.tolist()] if by_object else _rainbow(queries)
        self._has_trails = style.trail > 0
        self._fade = np.array([math.ceil(_TRAIL_ALPHA / max(1, style.trail))], np.float64)
        # Points far outside the frame are not visible, and would overflow OpenCV's integers.
        margin = math.ceil(4 * largest)
        low, high = np.array([-margin, -margin]), np.array([width + margin, height + margin])
        xy = size.of_points(tracks.xy)
        with np.errstate(invalid="ignore"):
            self._drawable: BoolArray = np.asarray(((xy > low) & (xy < high)).all(axis=2))
        self._fixed = (np.where(self._drawable[..., None], xy, 0) * 2**_SHIFT).round().astype(np.int32)
        self._trail = np.zeros((height, width, 3), np.uint8)
        self._trail_alpha = np.zeros((height, width), np.uint8)

    def fit(self, masks: BoolArray, object_ids: Sequence[int]) -> None:
        """Make the discs of each object small enough not to hide its mask, when its first mask is known.

        Args:
            masks: (K, H, W) bool, of one row.
            object_ids: the K object ids.
        """
        for object_id, mask in zip(object_ids, masks):
            if object_id in self._is_fitted or not (area := int(np.count_nonzero(mask))):
                continue
            self._is_fitted.add(object_id)
            points = self._object_id == object_id
            radius = math.sqrt(_COVERED * area / (math.pi * max(1, int(np.count_nonzero(points))))) / _RIM
            self._set_radius(np.where(points, np.clip(radius, _MIN_RADIUS, self._radius), self._radius))

    def draw(self, image: UInt8Array, row: int) -> None:
        """Draw the points of a row, and their trails, on an image; rows in ascending order."""
        if self._has_trails:
            self._extend_trails(row)
            self._blend_trails(image)
        self._draw_points(image, row)

    def _extend_trails(self, row: int) -> None:
        """Fade the trails by one step, and add the segments from the previous row to this one."""
        if row == 0:
            return
        cv2.subtract(self._trail_alpha, self._fade, dst=self._trail_alpha)
        usable = self._drawable[row - 1 : row + 1] & self._visible[row - 1 : row + 1]
        chosen = np.flatnonzero(usable.all(axis=0))
        steps = self._fixed[row - 1 : row + 1, chosen].transpose(1, 0, 2)
        thicknesses = self._trail_thickness[chosen]
        # The colour is drawn wider than the alpha, so that antialiasing leaves no dark fringe.
        for (start, end), number, thickness in zip(steps.tolist(), chosen.tolist(), thicknesses.tolist()):
            cv2.line(self._trail, start, end, self._colours[number], thickness + 2, cv2.LINE_8, _SHIFT)
        for thickness in np.unique(thicknesses).tolist():
            lines = list(steps[thicknesses == thickness])
            cv2.polylines(self._trail_alpha, lines, False, _TRAIL_ALPHA, thickness, cv2.LINE_AA, _SHIFT)

    def _blend_trails(self, image: UInt8Array) -> None:
        x, y, width, height = cv2.boundingRect(self._trail_alpha)
        if not width:
            return
        around = np.s_[y : y + height, x : x + width]
        below, above = image[around], self._trail[around]
        alpha = cv2.cvtColor(self._trail_alpha[around], cv2.COLOR_GRAY2RGB)
        shown = cv2.multiply(above, alpha, scale=1 / 255)
        cv2.add(shown, cv2.multiply(below, cv2.bitwise_not(alpha), scale=1 / 255), dst=below)

    def _draw_points(self, image: UInt8Array, row: int) -> None:
        chosen = np.flatnonzero(self._drawable[row])
        centres, visibles = self._fixed[row, chosen].tolist(), self._visible[row, chosen].tolist()
        for number, centre, visible in zip(chosen.tolist(), centres, visibles):
            rim, disc, ring = self._sizes[number]
            if visible:
                cv2.circle(image, centre, rim, _RIM_COLOUR, cv2.FILLED, cv2.LINE_AA, _SHIFT)
            cv2.circle(image, centre, disc, self._colours[number], cv2.FILLED if visible else ring, cv2.LINE_AA, _SHIFT)

    def _set_radius(self, radius: Float64Array) -> None:
        """Set the radius of the disc of every point.

        Args:
            radius: (N,) px.
        """
        self._radius = radius
        in_steps = radius * 2**_SHIFT
        rims, discs = np.rint(in_steps * _RIM).astype(int).tolist(), np.rint(in_steps).astype(int).tolist()
        self._sizes = list(zip(rims, discs, np.maximum(1, radius / 3).astype(int).tolist()))
        """(radius of the rim, of the disc, thickness of the ring) per point; the radii in the units of OpenCV."""
        self._trail_thickness = np.maximum(1, np.rint(radius / 2)).astype(int)


def _rainbow(queries: QueryPoints) -> list[tuple[int, int, int]]:
    """One colour per point, from red for the topmost query point to violet for the lowest."""
    if not len(queries):
        return []
    height = queries.txy[:, 2]
    position = (height - height.min()) / max(float(np.ptp(height)), 1.0)
    # OpenCV's hues are half degrees: 0 is red, 135 is violet; larger ones lead back to red.
    hsv = np.full((len(queries), 1, 3), 255, np.uint8)
    hsv[:, 0, 0] = np.round(position * 135)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return [(int(r), int(g), int(b)) for r, g, b in rgb[:, 0]]
