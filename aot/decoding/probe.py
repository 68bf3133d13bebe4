"""Which frames a video file holds and when they are shown, told from its packets: only one frame is decoded."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.errors import DecodeError
from aot.types import BoolArray, Float64Array, Int64Array

# Headers round, and the last frame's own length is often left out of one count or the other.
_MAX_SECONDS_MISSED = 1.0


@dataclass(frozen=True, eq=False)
class VideoProbe:
    """The best video stream of a file. T counts the frames that are shown."""

    stream_index: int
    """The stream that FFmpeg thinks best; not always the first one."""
    pts: Int64Array
    """(T,) presentation time stamps, ascending, in units of the stream's time base."""
    time: Float64Array
    """(T,) the same in s, not rebased."""
    restart_frame: Int64Array
    """(R,) ascending frames from which decoding can start: nothing before them is needed by, or shown after, them."""
    width: int
    """As shown, in px: after rotation metadata, before non-square pixels are stretched."""
    height: int
    """As shown, in px."""
    fps: float
    """Frames per second on average."""

    @property
    def num_frames(self) -> int:
        """Number of frames that are shown, T."""
        return len(self.pts)


@dataclass(frozen=True, eq=False)
class _Packets:
    """The packets of one stream in the order of decoding."""

    pts: Int64Array
    is_key: BoolArray
    is_shown: BoolArray
    end: int
    """When the last one ends to be shown, in units of the stream's time base."""


def probe_video(path: Path) -> VideoProbe:
    """Read the packets of a video file (0.03 to 0.1 ms each) and decode its first frame.

    Raises:
        DecodeError: not a video, no time stamps, or not even the first frame can be decoded.
    """
    try:
        stat = path.stat()
    except OSError as exc:
        reason = "no such file" if isinstance(exc, FileNotFoundError) else exc.strerror
        raise DecodeError(f"{path} ({reason}): cannot be read as a video; expected a file") from exc
    return _probe(path.absolute(), stat.st_size, stat.st_mtime_ns)


# Tracks, overlay and report of a clip each open its video; size and time tell whether it is still the same.
@lru_cache(maxsize=4)
def _probe(path: Path, num_bytes: int, mtime_ns: int) -> VideoProbe:
    try:
        with open_container(path) as container:
            stream = _best_stream(container, path)
            packets = _read_packets(container, stream, path)
            _refuse_cut(container, stream, packets, path)
            index, time_base, fps = stream.index, float(stream.time_base), stream.average_rate
        with open_container(path) as container:
            width, height = _first_size(container, path)
    except av.FFmpegError as exc:
        raise DecodeError(
            f"{path} ({num_bytes} bytes): cannot be read as a video: {exc.strerror}; expected a whole file that FFmpeg "
            f"can read: copy it again or see what `ffmpeg -i {shlex.quote(str(path))}` says"
        ) from exc
    pts = np.sort(packets.pts[packets.is_shown])
    time = np.asarray(pts * time_base, dtype=np.float64)
    return VideoProbe(
        stream_index=index,
        pts=pts,
        time=time,
        restart_frame=np.searchsorted(pts, packets.pts[_clean_keys(packets)]).astype(np.int64),
        width=width,
        height=height,
        fps=float(fps) if fps else _average_fps(time),
    )


def open_container(path: Path) -> Any:
    """Open a file by FFmpeg.

    The absolute path is taken neither for an option (a leading dash) nor for a protocol (a colon), and a title in
    another encoding than UTF-8 is nobody's loss.
    """
    return av.open(str(path.absolute()), metadata_errors="replace")


def repair_hint(path: Path) -> str:
    """Say how what can be decoded is kept in a file without faults."""
    mended = path.with_name(f"{path.stem}_mended.mp4")
    return (
        f"re-encode what can be decoded: "
        f"ffmpeg -i {shlex.quote(str(path))} -an -fps_mode passthrough -c:v libx264 -crf 18 {shlex.quote(str(mended))}"
    )


def _best_stream(container: Any, path: Path) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams})
        raise DecodeError(f"{path}: no video stream, only {', '.join(kinds) or 'nothing'}; expected a video file")
    return stream


def _read_packets(container: Any, stream: Any, path: Path) -> _Packets:
    rows = [
        (packet.pts, packet.is_keyframe, not packet.is_discard, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size  # the last one is empty: it asks the decoder for what it still holds
    ]
    shown = [pts for pts, _, is_shown, _ in rows if is_shown]
    if not shown:
        raise DecodeError(f"{path}: its video stream holds no frame; expected one at least")
    unclear = sum(pts is None for pts, *_ in rows) or len(shown) - len(set(shown))
    if unclear:
        raise DecodeError(
            f"{path}: {unclear} of {len(rows)} frames have no presentation time of their own; "
            f"expected a time stamp with each: {repair_hint(path)}"
        )
    return _Packets(
        pts=np.array([pts for pts, *_ in rows], dtype=np.int64),
        is_key=np.array([is_key for _, is_key, *_ in rows], dtype=np.bool_),
        is_shown=np.array([is_shown for _, _, is_shown, _ in rows], dtype=np.bool_),
        end=max(pts + duration for pts, _, _, duration in rows),
    )


def _refuse_cut(container: Any, stream: Any, packets: _Packets, path: Path) -> None:
    """Refuse a file whose end is missing: a copy that stopped halfway is no shorter video.

    Only MP4's kind and Matroska's are asked; what FFmpeg tells of others' length is a guess. A file that was written as
    a stream tells no length.
    """
    told, found = None, float((packets.end - packets.pts.min()) * stream.time_base)
    if "mov" in container.format.name and stream.duration:
        told = float(stream.duration * stream.time_base)
    elif "matroska" in container.format.name:
        told, found = _matroska_end(container, stream), float(packets.end * stream.time_base)
    if told is not None and found < told - _MAX_SECONDS_MISSED:
        raise DecodeError(
            f"{path}: its header tells of {told:.3f} s, its frames end after {found:.3f} s: the file is cut off; "
            f"copy it again, or {repair_hint(path)}"
        )


def _matroska_end(container: Any, stream: Any) -> float | None:
    """When a stream ends in s: by its own tag, or by the file's length where it has no other stream."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None


def _clean_keys(packets: _Packets) -> Int64Array:
    """Shown key packets that part the stream: all packets before are shown before, all after (and there are) after.

    decoded  I0 P3 b1 b2 I4 P7 b5 b6 I10 P13 b8 b9 …
    clean    #           #           - (an open group: b8 and b9 need P7 and I10)
    """
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min], packets.pts[:-1]]))
    after = np.minimum.accumulate(np.concatenate([packets.pts[1:], [packets.pts[-1]]])[::-1])[::-1]
    clean = packets.is_key & packets.is_shown & (before < packets.pts) & (packets.pts < after)
    return np.flatnonzero(clean).astype(np.int64)


def _first_size(container: Any, path: Path) -> tuple[int, int]:
    picture = next(container.decode(_best_stream(container, path)), None)
    if picture is None:
        raise DecodeError(f"{path}: no frame can be decoded; expected one at least")
    return shown_size(picture, path)


def shown_size(picture: Any, path: Path) -> tuple[int, int]:
    """Width and height of a decoded picture in px, as it is shown.

    Raises:
        DecodeError: see `quarter_turns`.
    """
    return (picture.height, picture.width) if quarter_turns(picture, path) % 2 else (picture.width, picture.height)


def quarter_turns(picture: Any, path: Path) -> int:
    """How often a decoded picture is to be turned by 90 degrees, counter-clockwise, to be as it is shown.

    Raises:
        DecodeError: its rotation metadata ask for another angle.
    """
    if picture.rotation % 90:
        raise DecodeError(
            f"{path}: its metadata turn the picture by {picture.rotation} degrees, expected 0, 90, 180 or 270; "
            f"{repair_hint(path)}"
        )
    return int(picture.rotation // 90)


def _average_fps(time: Float64Array) -> float:
    return float((len(time) - 1) / (time[-1] - time[0])) if len(time) > 1 else 1.0
