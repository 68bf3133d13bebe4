"""The overlay: masks and tracks drawn over the source video, as an MP4 that any browser plays.

Drawn as CoTracker's demo draws its tracks: a point keeps the rainbow colour of its height on its query frame (or its
object's), is a disc while it is seen and a ring while it is not, and pulls a short fading trail. Objects are tinted in
their own colours. Frames stream through: one is drawn while the encoder works on those before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.packet import Packet
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream

from aot.decoding.base import FrameSource
from aot.drawing.style import OverlayStyle
from aot.errors import OutOfMemory, WriteError
from aot.system.files import replacing
from aot.types import LOWEST_OBJECT_ID, BoolArray, Float64Array, Int64Array, QueryPoints, Tracks, UInt8Array

# Okabe and Ito's colours, which colour-blind eyes tell apart too; the one that stands out from most scenes is first.
OBJECT_COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (213, 94, 0),
    (240, 228, 66),
    (0, 114, 178),
)

# Of the picture's height, and never less than that many px: what is smaller cannot be read.
_LABEL_HEIGHT, _MIN_LABEL_HEIGHT = 1 / 32, 10
# Of the picture's diagonal.
_RADIUS, _OUTLINE = 1 / 250, 1 / 500
# A dark rim sets discs off from whatever lies beneath; rings are to recede.
_RIM, _RIM_COLOUR = 1.3, (24, 24, 24)
# Of 255, where a trail begins: what many trails cover is still to be seen.
_TRAIL_ALPHA = 190
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Height in px of that font's capitals at scale 1.
_FONT_HEIGHT = 21
_TIME_BASE = Fraction(1, 90_000)
# 1 ms: the container's edit list counts in it, and shows nothing of a clip that is shorter.
_MIN_STEP = 90
# Good enough to judge a track by, at about 3 Mbit/s for 854x480.
_ENCODER_OPTIONS = {"preset": "veryfast", "crf": "21"}
# OpenCV draws at 1/16 px with 4 fractional bits.
_SHIFT = 4
_FALLBACK_FPS = 25.0
_BT709 = 1


def write_overlay(
    path: Path,
    frames: FrameSource,
    *,
    tracks: Tracks,
    queries: QueryPoints,
    masks: Callable[[int], BoolArray | None],
    object_ids: Sequence[int],
    look: OverlayStyle | None = None,
) -> None:
    """Draw every kept frame with its masks and tracks, and put the video at `path` when it is whole.

    Args:
        path: the MP4 to write.
        frames: the T kept frames; the video keeps their distances in time.
        tracks: T rows.
        queries: the N points of `tracks`.
        masks: gives a row's masks, (K, H, W), or None where it has none; asked once a row, in ascending order.
        object_ids: the K objects.
        look: None: the usual one.
    Raises:
        WriteError: the video cannot be encoded or put in place.
        DecodeError: the source cannot be read.
        OutOfMemory: memory ran out.
    """
    if len(tracks.xy) != len(frames.index) or tracks.xy.shape[1] != len(queries):
        raise ValueError(
            f"write_overlay: got tracks {tracks.xy.shape}, expected ({len(frames.index)}, {len(queries)}, 2): "
            f"a row a kept frame, a column a query point"
        )
    look = look or OverlayStyle()
    points = _PointPainter(frames.width, frames.height, tracks, queries, look)
    with replacing(path) as part, _VideoWriter(part, path, frames, look) as video:
        row = 0
        for block in frames.blocks():
            for frame, time, rgb in zip(block.index.tolist(), block.time.tolist(), block.rgb):
                # Blocks may be views of the decoder's memory, or of a test's array.
                picture = rgb.copy()
                _paint_masks(picture, masks(row), object_ids, look)
                points.draw(picture, row)
                if look.label:
                    _label(picture, f"frame {frame}   {time:.2f} s")
                video.write(np.hstack([rgb, picture]) if look.side_by_side else picture)
                row += 1


def object_colour(object_id: int) -> tuple[int, int, int]:
    """RGB of an object, the same in overlays, on the prompt page and in the report."""
    return OBJECT_COLOURS[(object_id - LOWEST_OBJECT_ID) % len(OBJECT_COLOURS)]


# Masks ---------------------------------------------------------------------------------------------------------------


def tint(picture: UInt8Array, masks: BoolArray, object_ids: Sequence[int]) -> None:
    """Colour some objects in place as overlays do, (H, W, 3) RGB."""
    _paint_masks(picture, masks, object_ids, OverlayStyle())


def _paint_masks(picture: UInt8Array, masks: BoolArray | None, object_ids: Sequence[int], look: OverlayStyle) -> None:
    """Colour each object in place, with an outline in the full colour."""
    if masks is None:
        return
    for object_id, mask in zip(object_ids, masks):
        shape = np.ascontiguousarray(mask).view(np.uint8)
        x, y, width, height = cv2.boundingRect(shape)
        if not width:
            continue
        colour = object_colour(object_id)
        part, inside = picture[y : y + height, x : x + width], shape[y : y + height, x : x + width]
        if look.tint:
            cv2.copyTo(cv2.LUT(part, _tint_table(colour, look.tint)), inside, part)
        if look.outline:
            outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x, y))
            thickness = max(1, round(math.hypot(*picture.shape[:2]) * _OUTLINE))
            cv2.drawContours(picture, outlines, -1, colour, thickness, cv2.LINE_AA)


@cache
def _tint_table(colour: tuple[int, int, int], share: float) -> UInt8Array:
    """What each value 0..255 of each channel becomes under the tint, (256, 1, 3)."""
    values = np.arange(256)[:, None] * (1 - share) + np.array(colour) * share
    return np.round(values).astype(np.uint8)[:, None, :]


def _label(picture: UInt8Array, text: str) -> None:
    """Write a line into the lower left corner, on a darkened ground; nothing where it would not fit."""
    height, width = picture.shape[:2]
    size = max(_MIN_LABEL_HEIGHT, round(height * _LABEL_HEIGHT))
    scale, margin = size / _FONT_HEIGHT, size // 2 + 1
    thickness = max(1, round(scale * 1.6))
    (text_width, _), _ = cv2.getTextSize(text, _FONT, scale, thickness)
    if text_width + 2 * margin > width or size + 2 * margin > height / 4:
        return
    ground = picture[height - size - 2 * margin :, : text_width + 2 * margin]
    ground[:] = ground // 3
    cv2.putText(picture, text, (margin, height - margin), _FONT, scale, (255, 255, 255), thickness, cv2.LINE_AA)


# Points --------------------------------------------------------------------------------------------------------------


class _PointPainter:
    """Draws the points of row after row, and remembers the fading trails between them."""

    def __init__(self, width: int, height: int, tracks: Tracks, queries: QueryPoints, look: OverlayStyle) -> None:
        self._radius = max(1.5, float(np.hypot(width, height)) * _RADIUS)
        self._tracks = tracks
        by_object = look.colour == "object"
        self._colours = [object_colour(i) for i in queries.object_id.tolist()] if by_object else _rainbow(queries)
        self._has_trails = look.trail > 0
        self._fade = np.array([math.ceil(_TRAIL_ALPHA / max(1, look.trail))], np.float64)
        # Far outside nothing is seen, and OpenCV's integers would overflow.
        margin = math.ceil(4 * self._radius)
        low, high = np.array([-margin, -margin]), np.array([width + margin, height + margin])
        with np.errstate(invalid="ignore"):
            self._drawable: BoolArray = np.asarray(((tracks.xy > low) & (tracks.xy < high)).all(axis=2))
        self._fixed = (np.where(self._drawable[..., None], tracks.xy, 0) * 2**_SHIFT).round().astype(np.int32)
        self._trail = np.zeros((height, width, 3), np.uint8)
        self._trail_alpha = np.zeros((height, width), np.uint8)

    def draw(self, picture: UInt8Array, row: int) -> None:
        if self._has_trails:
            self._extend_trails(row)
            self._blend_trails(picture)
        self._draw_points(picture, row)

    def _extend_trails(self, row: int) -> None:
        """Fade what is there by one step, and draw the steps from the row before to this one."""
        if row == 0:
            return
        cv2.subtract(self._trail_alpha, self._fade, dst=self._trail_alpha)
        usable = self._drawable[row - 1 : row + 1] & self._tracks.visible[row - 1 : row + 1]
        chosen = np.flatnonzero(usable.all(axis=0))
        steps = self._fixed[row - 1 : row + 1, chosen].transpose(1, 0, 2)
        thickness = max(1, round(self._radius / 2))
        # The colour wider than the alpha: no dark fringe where the line is smoothed.
        for (start, end), number in zip(steps.tolist(), chosen.tolist()):
            cv2.line(self._trail, start, end, self._colours[number], thickness + 2, cv2.LINE_8, _SHIFT)
        if len(steps):
            cv2.polylines(self._trail_alpha, list(steps), False, _TRAIL_ALPHA, thickness, cv2.LINE_AA, _SHIFT)

    def _blend_trails(self, picture: UInt8Array) -> None:
        # Only the pixels under a trail: they are few, and whole frames would be slow.
        under = np.flatnonzero(self._trail_alpha)
        alpha = self._trail_alpha.reshape(-1)[under, None].astype(np.uint16)
        below, above = picture.reshape(-1, 3), self._trail.reshape(-1, 3)[under]
        below[under] = (below[under] * (255 - alpha) + above * alpha + 127) // 255

    def _draw_points(self, picture: UInt8Array, row: int) -> None:
        radius, rim = round(self._radius * 2**_SHIFT), round(self._radius * _RIM * 2**_SHIFT)
        ring = max(1, int(self._radius / 3))
        chosen = np.flatnonzero(self._drawable[row])
        visible = self._tracks.visible[row, chosen].tolist()
        for number, centre, seen in zip(chosen.tolist(), self._fixed[row, chosen].tolist(), visible):
            if seen:
                cv2.circle(picture, centre, rim, _RIM_COLOUR, cv2.FILLED, cv2.LINE_AA, _SHIFT)
            thickness = cv2.FILLED if seen else ring
            cv2.circle(picture, centre, radius, self._colours[number], thickness, cv2.LINE_AA, _SHIFT)


def _rainbow(queries: QueryPoints) -> list[tuple[int, int, int]]:
    """One colour a point, from red for the topmost query to violet for the lowest."""
    if not len(queries):
        return []
    height = queries.txy[:, 2]
    share = (height - height.min()) / max(float(np.ptp(height)), 1.0)
    # OpenCV's hues are halved degrees: 0 is red, 135 is violet; the rest would lead back to red.
    hsv = np.full((len(queries), 1, 3), 255, np.uint8)
    hsv[:, 0, 0] = np.round(share * 135)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return [(int(r), int(g), int(b)) for r, g, b in rgb[:, 0]]


# The file ------------------------------------------------------------------------------------------------------------


class _VideoWriter:
    """An H.264 file in the making; frames keep their presentation times."""

    def __init__(self, part: Path, path: Path, frames: FrameSource, look: OverlayStyle) -> None:
        self._path = path
        self._times = _ticks(frames.time)
        durations = _durations(self._times, frames.fps)
        self._rate = _rate(durations)
        self._duration_at: dict[int | None, int] = dict(zip(self._times.tolist(), durations.tolist()))
        self._num_written = 0
        with self._mapped_errors():
            # faststart puts the index first, so that a browser starts before it has the whole file.
            self._container = av.open(part, "w", format="mp4", options={"movflags": "+faststart"})
            self._container.metadata["comment"] = look.mark
            width = frames.width * (2 if look.side_by_side else 1)
            try:
                self._stream = self._container.add_stream("libx264", options=_ENCODER_OPTIONS)
                self._set_up(self._stream, width, frames.height)
            except BaseException:
                self._abandon()
                raise

    def write(self, picture: UInt8Array) -> None:
        """Encode the next frame, (H, W, 3) RGB."""
        bottom, right = picture.shape[0] % 2, picture.shape[1] % 2
        if bottom or right:
            picture = cast(UInt8Array, cv2.copyMakeBorder(picture, 0, bottom, 0, right, cv2.BORDER_REPLICATE))
        with self._mapped_errors():
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            frame.pts, frame.time_base = int(self._times[self._num_written]), _TIME_BASE
            self._mux(self._stream.encode(frame))
        self._num_written += 1

    def __enter__(self) -> _VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._abandon()
            return
        with self._mapped_errors():
            try:
                self._finish()
            except BaseException:
                self._abandon()
                raise

    def _set_up(self, stream: VideoStream, width: int, height: int) -> None:
        # yuv420p halves both sizes.
        stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
        context = stream.codec_context
        context.framerate = self._rate
        context.time_base = stream.time_base = _TIME_BASE
        # Said in the file; players guess otherwise, and differently for small and large pictures.
        context.colorspace = context.color_primaries = context.color_trc = _BT709

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            # The encoder drops durations; without one a clip of one frame would last no time.
            packet.duration = self._duration_at[packet.pts]
            self._container.mux(packet)

    def _finish(self) -> None:
        self._mux(self._stream.encode(None))
        self._container.close()

    def _abandon(self) -> None:
        # What goes wrong here is a consequence of the error that is on its way.
        with suppress(av.FFmpegError, OSError):
            self._container.close()

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except MemoryError as exc:
            raise OutOfMemory(f"out of memory while encoding the overlay {self._path}: {exc}") from exc
        except (av.FFmpegError, UnknownCodecError, OSError) as exc:
            raise WriteError(
                f"cannot write the overlay {self._path}: {exc}; check the space left and the folder, "
                f"or do without it: output.overlay=false"
            ) from exc


def _ticks(time: Float64Array) -> Int64Array:
    """Presentation times since the first frame in units of the time base, strictly increasing."""
    ticks = np.round((time - time[0]) / float(_TIME_BASE)).astype(np.int64)
    least = np.arange(len(ticks)) * _MIN_STEP
    return np.asarray(np.maximum.accumulate(ticks - least) + least)


def _durations(ticks: Int64Array, fps: float) -> Int64Array:
    """How long each frame is shown; the last as long as one before it, or as the source's rate says."""
    steps = np.diff(ticks)
    usual = steps[-1] if len(steps) else max(1, round(1 / (fps if fps > 0 else _FALLBACK_FPS) / float(_TIME_BASE)))
    return np.append(steps, usual).astype(np.int64)


def _rate(durations: Int64Array) -> Fraction:
    """Average frames per second; the encoder budgets with it, and shows no frame by it."""
    rate = Fraction(1 / (float(durations.mean()) * float(_TIME_BASE))).limit_denominator(1001)
    return max(rate, Fraction(1, 1001))
