"""The overlay: masks and tracks drawn over the source video.

Tracks are drawn as in CoTracker's demo: a point keeps one colour, taken from a rainbow over the heights of the query
points (or that of its object); it is a disc while visible and a ring while hidden, and leaves a short fading trail.
Objects are tinted in their own colours. Frames are streamed: one is drawn while the encoder works on earlier ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from aot.decoding.base import FrameSource
from aot.drawing.colours import object_colour, tint
from aot.drawing.style import OverlayStyle
from aot.drawing.video_writer import VideoWriter
from aot.system.files import replacing
from aot.types import BoolArray, QueryPoints, Tracks, UInt8Array

# As a fraction of the image height, and the minimum in px: smaller text cannot be read.
_LABEL_HEIGHT, _MIN_LABEL_HEIGHT = 1 / 32, 10
# As a fraction of the image diagonal.
_RADIUS = 1 / 250
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
        style: None: the defaults.
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
    points = _PointPainter(frames.width, frames.height, tracks, queries, style)
    width = frames.width * (2 if style.side_by_side else 1)
    with (
        replacing(path) as part,
        VideoWriter(
            part,
            path,
            width=width,
            height=frames.height,
            pixel_aspect=frames.pixel_aspect,
            time=frames.time,
            fps=frames.fps,
            comment=style.mark,
        ) as video,
    ):
        row = 0
        for block in frames.blocks():
            for frame, time, rgb in zip(block.index.tolist(), block.time.tolist(), block.rgb):
                # A block may be a view of the decoder's memory.
                image = rgb.copy()
                found = masks(row)
                if found is not None:
                    tint(image, found, object_ids, style)
                points.draw(image, row)
                if style.label:
                    _label(image, f"frame {frame}   {time:.2f} s")
                video.write(np.hstack([rgb, image]) if style.side_by_side else image)
                row += 1


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
        width, height: of the frames, px.
        tracks: T rows of N points.
        queries: the N query points.
        style: colour of the points and length of the trails.
    """

    def __init__(self, width: int, height: int, tracks: Tracks, queries: QueryPoints, style: OverlayStyle) -> None:
        self._radius = max(1.5, float(np.hypot(width, height)) * _RADIUS)
        self._tracks = tracks
        by_object = style.colour == "object"
        self._colours = [object_colour(i) for i in queries.object_id.tolist()] if by_object else _rainbow(queries)
        self._has_trails = style.trail > 0
        self._fade = np.array([math.ceil(_TRAIL_ALPHA / max(1, style.trail))], np.float64)
        # Points far outside the frame are not visible, and would overflow OpenCV's integers.
        margin = math.ceil(4 * self._radius)
        low, high = np.array([-margin, -margin]), np.array([width + margin, height + margin])
        with np.errstate(invalid="ignore"):
            self._drawable: BoolArray = np.asarray(((tracks.xy > low) & (tracks.xy < high)).all(axis=2))
        self._fixed = (np.where(self._drawable[..., None], tracks.xy, 0) * 2**_SHIFT).round().astype(np.int32)
        self._trail = np.zeros((height, width, 3), np.uint8)
        self._trail_alpha = np.zeros((height, width), np.uint8)

    def draw(self, image: UInt8Array, row: int) -> None:
        if self._has_trails:
            self._extend_trails(row)
            self._blend_trails(image)
        self._draw_points(image, row)

    def _extend_trails(self, row: int) -> None:
        """Fade the trails by one step, and add the segments from the previous row to this one."""
        if row == 0:
            return
        cv2.subtract(self._trail_alpha, self._fade, dst=self._trail_alpha)
        usable = self._drawable[row - 1 : row + 1] & self._tracks.visible[row - 1 : row + 1]
        chosen = np.flatnonzero(usable.all(axis=0))
        steps = self._fixed[row - 1 : row + 1, chosen].transpose(1, 0, 2)
        thickness = max(1, round(self._radius / 2))
        # The colour is drawn wider than the alpha, so that antialiasing leaves no dark fringe.
        for (start, end), number in zip(steps.tolist(), chosen.tolist()):
            cv2.line(self._trail, start, end, self._colours[number], thickness + 2, cv2.LINE_8, _SHIFT)
        if len(steps):
            cv2.polylines(self._trail_alpha, list(steps), False, _TRAIL_ALPHA, thickness, cv2.LINE_AA, _SHIFT)

    def _blend_trails(self, image: UInt8Array) -> None:
        # Only pixels under a trail are blended: they are few, and blending complete frames would be slow.
        under = np.flatnonzero(self._trail_alpha)
        alpha = self._trail_alpha.reshape(-1)[under, None].astype(np.uint16)
        below, above = image.reshape(-1, 3), self._trail.reshape(-1, 3)[under]
        below[under] = (below[under] * (255 - alpha) + above * alpha + 127) // 255

    def _draw_points(self, image: UInt8Array, row: int) -> None:
        radius, rim = round(self._radius * 2**_SHIFT), round(self._radius * _RIM * 2**_SHIFT)
        ring = max(1, int(self._radius / 3))
        chosen = np.flatnonzero(self._drawable[row])
        visibles = self._tracks.visible[row, chosen].tolist()
        for number, centre, visible in zip(chosen.tolist(), self._fixed[row, chosen].tolist(), visibles):
            if visible:
                cv2.circle(image, centre, rim, _RIM_COLOUR, cv2.FILLED, cv2.LINE_AA, _SHIFT)
            thickness = cv2.FILLED if visible else ring
            cv2.circle(image, centre, radius, self._colours[number], thickness, cv2.LINE_AA, _SHIFT)


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
