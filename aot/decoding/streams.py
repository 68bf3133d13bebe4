"""Which of the video streams of a file is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from av.stream import Disposition

from aot.errors import DecodeError

# Covers and preview images, which FFmpeg lists as video streams.
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails

# A stream that is marked as the default one counts as this number of px more.
_DEFAULT_BONUS = 5_000_000


def video_streams(container: Any) -> list[Any]:
    """The video streams of an open file, in its order; covers and preview images are none."""
    return [stream for stream in container.streams.video if not stream.disposition & _PICTURES]


def chosen_stream(container: Any, path: Path, number: int | None) -> Any:
    """The video stream to read.

    Args:
        container: of PyAV, open.
        path: of the file, for messages.
        number: of the stream among the video streams, from 0; None: the one that the `ffmpeg` command chooses, which is
            the largest, preferably one marked as the default, and the first of equal ones.
    Raises:
        DecodeError: there is no video stream, or none with this number, or FFmpeg does not know its codec.
    Source: FFmpeg, `map_auto_video` in fftools/ffmpeg_mux_init.c.
    """
    streams = video_streams(container)
    if not streams:
        kinds = sorted({"a cover image" if one.type == "video" else one.type for one in container.streams})
        raise DecodeError(f"{path}: no video stream, only {', '.join(kinds) or 'nothing'}; expected a video file")
    if number is not None and number >= len(streams):
        listed = ", ".join(f"{place}: {_description(stream)}" for place, stream in enumerate(streams))
        raise DecodeError(f"{path}: has no video stream {number} (dataset.stream); expected one of {listed}")
    # Of equal ones, `max` returns the first.
    stream = max(streams, key=_rank) if number is None else streams[number]
    if stream.codec_context is None:
        raise DecodeError(f"{path}: its video stream has a codec that FFmpeg does not know; expected a video file")
    return stream


def _rank(stream: Any) -> int:
    pixels = stream.width * stream.height if stream.codec_context else 0
    return int(pixels + _DEFAULT_BONUS * bool(stream.disposition & Disposition.default))


def _description(stream: Any) -> str:
    if stream.codec_context is None:
        return "unknown codec"
    return f"{stream.codec_context.name} {stream.width}x{stream.height} px"
