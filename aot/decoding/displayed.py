"""Decoded frames as images for display: in RGB, turned and mirrored as the `ffmpeg` command and players do it."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.reformatter import VideoReformatter

from aot.decoding.container import repair_command, repair_hint
from aot.errors import DecodeError
from aot.system.os_errors import os_reason
from aot.types import UInt8Array

# AVColorSpace in libavutil/pixfmt.h: those that FFmpeg does not convert to RGB, all others of 0 to 9 it does.
_UNSUPPORTED_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "derived from the primaries, without constant luminance",
    13: "derived from the primaries, with constant luminance",
    14: "ICtCp",
    15: "IPT-C2",
    16: "YCgCo-Re",
    17: "YCgCo-Ro",
}


def _unknown_kind(kinds: type[Type], value: Any) -> Type:
    kind = object.__new__(kinds)
    kind._name_, kind._value_ = f"UNKNOWN_{value}", value
    return kind


# PyAV 18 cannot list the side data of a frame among which is a kind that is newer than it: EXIF, views of 3D videos.
Type._missing_ = classmethod(_unknown_kind)  # type: ignore[assignment]


@dataclass(frozen=True)
class Orientation:
    """What must be done to decoded frames before they are displayed: the mirroring first, then the rotation."""

    turns: int = 0
    """Number of counter-clockwise rotations by 90 degrees, 0 to 3."""
    is_mirrored: bool = False
    """Whether the upper and the lower side are exchanged."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height for display of frames that are stored with this width and height, px."""
        return (height, width) if self.turns % 2 else (width, height)

    def apply(self, image: UInt8Array) -> UInt8Array:
        """The image as displayed, a view.

        Args:
            image: (H, W, 3) as stored.
        """
        return np.rot90(image[::-1] if self.is_mirrored else image, self.turns)


def orientation_of(frame: Any, path: Path) -> Orientation:
    """The orientation in the metadata of a decoded frame.

    The angle is rounded to whole degrees. A matrix that shrinks the image to a line or a point has no angle, and is
    ignored: some programs write a matrix of zeros. Offsets and scales are ignored too.
    Source: FFmpeg 5.1, `get_rotation` in fftools/cmdutils.c and `configure_input_video_filter` in ffmpeg_filter.c.

    Args:
        frame: of PyAV.
        path: of its file, for messages.
    Raises:
        DecodeError: the angle is not a multiple of 90 degrees.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return Orientation()
    # x' = a x + c y and y' = b x + d y, with y downwards; see libavutil/display.h.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data)[:36])
    first, second = math.hypot(a, c), math.hypot(b, d)
    if not (first and second):
        return Orientation()
    angle = -round(math.degrees(math.atan2(b / second, a / first)))
    if angle % 90:
        raise DecodeError(
            f"{path}: its metadata rotate the frames by {angle} degrees; expected 0, 90, 180 or 270: "
            f"{repair_hint(path)}"
        )
    turns = angle // 90 % 4
    # Each matrix without mirroring has the opposite sign in the place that decides.
    return Orientation(turns, is_mirrored=(d < 0, c < 0, d >= 0, c > 0)[turns])


def displayed_image(frame: Any, path: Path, reformatter: Any = None) -> UInt8Array:
    """A decoded frame as it is displayed, (H, W, 3) RGB.

    Args:
        frame: of PyAV.
        path: of its file, for messages.
        reformatter: of PyAV, for all frames of a video: a new one takes 0.2 ms for its preparations.
    Raises:
        DecodeError: FFmpeg cannot convert its colours, or it is rotated by an odd angle.
    """
    converter: Any = reformatter or VideoReformatter()
    try:
        stored = _as_progressive(frame) if frame.interlaced_frame else frame
        image = converter.reformat(stored, format="rgb24").to_ndarray()
    except (MemoryError, BlockingIOError):  # without memory, the threads of the conversion cannot start
        raise
    except av.FFmpegError as exc:
        raise _unconvertible(frame, path, exc) from exc
    return orientation_of(frame, path).apply(image)


def _as_progressive(frame: Any) -> Any:
    """An interlaced frame without this flag, with the same data.

    PyAV converts the colours of each field on its own, the `ffmpeg` command and decord those of the whole frame.
    """
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base or Fraction(1)
        ),
        graph.add("setfield", "prog"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()


def _unconvertible(frame: Any, path: Path, error: av.FFmpegError) -> DecodeError:
    matrix = int(frame.colorspace)
    name = _UNSUPPORTED_MATRICES.get(matrix, "unknown")
    return DecodeError(
        f"{path}: its colours cannot be converted to RGB ({os_reason(error)}): they are {frame.format.name} with the "
        f"colour matrix {matrix} ({name}); expected BT.601, BT.709 or BT.2020: if that label is wrong, correct it by "
        f"{repair_command(path, 'setparams=colorspace=bt709')}; otherwise convert the colours with FFmpeg's filter "
        f"zscale or libplacebo"
    )
