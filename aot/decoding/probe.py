"""Number and presentation times of the frames of a video file, read from its packets; only one frame is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.decoding.completeness import refuse_incomplete, refuse_interrupted
from aot.decoding.container import ffmpeg_argument, ffmpeg_reason, open_container
from aot.decoding.displayed import Orientation, displayed_image, orientation_of
from aot.decoding.packets import clean_keys, read_packets
from aot.decoding.streams import chosen_stream, video_streams
from aot.errors import DecodeError
from aot.system.os_errors import os_problem
from aot.types import Float64Array, Int64Array, UInt8Array

MAX_KEPT_BYTES = 8 * 2**20
"""A first frame of up to 1080p is kept with its probe."""


@dataclass(frozen=True)
class FirstFrame:
    """What the first decoded frame of a stream tells about all of them."""

    width: int
    """Stored px, after the rotation in the metadata."""
    height: int
    """Likewise."""
    bits: int
    """Largest number of bits of a colour component."""
    orientation: Orientation
    """How the frames are turned and mirrored for display."""
    pixel_aspect: Fraction
    """Width of a pixel as displayed, in heights of a pixel: its sample aspect ratio, after the rotation."""
    pts: int | None
    """Its time stamp."""
    image: UInt8Array | None = field(compare=False, repr=False)
    """(H, W, 3) RGB, as it is displayed; None if it is large, because probes are kept, or reported as damaged."""


@dataclass(frozen=True, eq=False)
class VideoProbe:
    """One video stream of a file. T is the number of displayed frames."""

    stream_index: int
    """Of the stream among all streams of the file."""
    stream: int
    """Number of the stream among the video streams, see `streams.video_streams`."""
    num_streams: int
    """Number of video streams."""
    pts: Int64Array
    """(T,) presentation time stamps, ascending, in units of the stream's time base."""
    time: Float64Array
    """(T,) the same in s, not shifted to start at 0."""
    restart_frame: Int64Array
    """(R,) ascending: frames from which decoding can start, because no frame depends on packets from before them."""
    width: int
    """Stored px, after the rotation in the metadata: non-square pixels are not scaled."""
    height: int
    """Likewise."""
    fps: float
    """Average frames per second: (T - 1) / (last time - first time); of a single frame, the rate in the header."""
    num_packets: int
    """Number of packets, displayed or not; at least T."""
    header_frames: int
    """Number of frames according to the header; 0 if it gives none."""
    first_frame: FirstFrame

    @property
    def num_frames(self) -> int:
        """Number of displayed frames, T."""
        return len(self.pts)


def probe_video(path: Path, stream: int | None = None) -> VideoProbe:
    """Read the packets of a video file (0.03 to 0.1 ms each) and decode its first frame.

    Args:
        path: the video file.
        stream: number of the video stream to read, see `chosen_stream`.
    Raises:
        DecodeError: the file is not a video or lacks the stream, has no time stamps, or its first frame cannot be
            decoded.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        raise DecodeError(f"{path} cannot be read as a video: {os_problem(exc)}") from exc
    return _probe(path, stream, path.absolute(), stat.st_size, stat.st_mtime_ns)


# Tracking, overlay and report each open the video of a clip. Its size and modification time show whether it changed.
# Messages name the path as it was given; the absolute path distinguishes files of the same name in two folders.
@lru_cache(maxsize=4)
def _probe(path: Path, number: int | None, _absolute: Path, num_bytes: int, mtime_ns: int) -> VideoProbe:
    try:
        with open_container(path) as container:
            stream = chosen_stream(container, path, number)
            streams = video_streams(container)
            place = streams.index(stream)
            refuse_interrupted(container, path)
            # From the same packets, because opening a file takes longer than reading those of a short clip.
            first = _FirstDecoded()
            packets = read_packets(container, stream, path, first.add)
            refuse_incomplete(container, stream, packets, path)
            index, time_base, rate = stream.index, float(stream.time_base), stream.average_rate
            header_frames, is_avi = int(stream.frames), container.format.name == "avi"
            first_frame = _first_frame(first.frame(), Fraction(stream.sample_aspect_ratio or 1), path)
        delay = int(packets.pts.min()) - _first_dts(path, number) if is_avi else 0
    except av.FFmpegError as exc:
        raise DecodeError(
            f"{path} ({num_bytes} bytes): cannot be read as a video: {ffmpeg_reason(exc)}; expected a complete file "
            f"that FFmpeg can read: copy it again, or see the output of `ffmpeg -i {ffmpeg_argument(path)}`"
        ) from exc
    pts = np.sort(packets.pts[packets.is_shown])
    time = np.asarray((pts - delay) * time_base, dtype=np.float64)
    return VideoProbe(
        stream_index=index,
        stream=place,
        num_streams=len(streams),
        pts=pts,
        time=time,
        restart_frame=np.searchsorted(pts, packets.pts[clean_keys(packets)]).astype(np.int64),
        width=first_frame.width,
        height=first_frame.height,
        fps=_average_fps(time, float(rate or 0), time_base),
        num_packets=len(packets.pts),
        header_frames=header_frames,
        first_frame=first_frame,
    )


class _FirstDecoded:
    """Decodes the first frame of a stream while its packets are read."""

    def __init__(self) -> None:
        self._frame: Any = None
        self._error: av.FFmpegError | None = None

    def add(self, packet: Any) -> None:
        """Decode a packet, unless the first frame is known or cannot be decoded."""
        if self._frame is not None or self._error is not None:
            return
        try:
            self._frame = next(iter(packet.decode()), None)
        except av.FFmpegError as exc:
            self._error = exc

    def frame(self) -> Any:
        """The frame; None: there is none.

        Raises:
            av.FFmpegError: it cannot be decoded. Raised here, because damaged packets are reported before it.
        """
        if self._error is not None:
            raise self._error
        return self._frame


def _first_frame(frame: Any, aspect: Fraction, path: Path) -> FirstFrame:
    if frame is None:
        raise DecodeError(f"{path}: no frame can be decoded; expected at least one")
    image = displayed_image(frame, path)  # raises if its colours cannot be converted
    orientation = orientation_of(frame, path)
    width, height = orientation.size(frame.width, frame.height)
    bits = max(component.bits for component in frame.format.components)
    is_kept = image.nbytes <= MAX_KEPT_BYTES and not frame.is_corrupt
    return FirstFrame(
        width=width,
        height=height,
        bits=bits,
        orientation=orientation,
        pixel_aspect=1 / aspect if orientation.turns % 2 else aspect,
        pts=frame.pts,
        image=image if is_kept else None,
    )


def _first_dts(path: Path, number: int | None) -> int:
    """When the first packet is decoded, in units of the stream's time base.

    AVI stores no presentation times. Those that FFmpeg makes up begin later by the encoder's delay.
    """
    with open_container(path) as container:
        return int(next(container.demux(chosen_stream(container, path, number))).dts or 0)


def _average_fps(time: Float64Array, header_rate: float, time_base: float) -> float:
    """The rate in the header if the times agree with it, because they are rounded; otherwise that of the times."""
    if len(time) == 1:
        return header_rate or 1.0
    num_steps, seconds = len(time) - 1, float(time[-1] - time[0])
    if header_rate and abs(num_steps / header_rate - seconds) <= time_base:
        return header_rate
    return num_steps / seconds
