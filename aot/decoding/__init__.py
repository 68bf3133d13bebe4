"""Open the frames of a clip with the decoder for its kind of source."""

from __future__ import annotations

import math

from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from aot.types import Clip, UInt8Array


def open_source(clip: Clip) -> FrameSource:
    """Open the frames of a clip between its start_seconds and end_seconds.

    Args:
        clip: its source is a video file or a folder with one image per frame.
    Returns:
        The frames whose presentation time is in [start_seconds, end_seconds).
    Raises:
        DecodeError: the source cannot be read, or has no frame in that time range.
    """
    source = _open(clip)
    try:
        _keep_time_range(source, clip)
    except DecodeError:
        source.close()
        raise
    return source


def first_frame(clip: Clip) -> UInt8Array:
    """The first frame of a clip's source; only this frame is decoded, whatever the clip's length.

    Returns:
        (H, W, 3) RGB.
    Raises:
        DecodeError: the source cannot be read.
    """
    if clip.source.is_dir():
        from aot.decoding.frame_folder import first_frame as first_frame_of_folder

        return first_frame_of_folder(clip.source)
    from aot.decoding.video_file import first_frame as first_frame_of_video

    return first_frame_of_video(clip.source)


def _open(clip: Clip) -> FrameSource:
    # One adapter per kind of source; its library is imported only when such a source is opened.
    if clip.source.is_dir():
        from aot.decoding.frame_folder import FrameFolder

        return FrameFolder(clip.source, fps=clip.fps)
    from aot.decoding.video_file import VideoFile

    return VideoFile(clip.source)


def _keep_time_range(source: FrameSource, clip: Clip) -> None:
    if clip.start_seconds is None and clip.end_seconds is None:
        return
    start = -math.inf if clip.start_seconds is None else clip.start_seconds
    end = math.inf if clip.end_seconds is None else clip.end_seconds
    shown = (source.time >= start) & (source.time < end)
    if not shown.any():
        raise DecodeError(
            f"{clip.source}: no frame from start_seconds={start:g} to end_seconds={end:g}; its {len(source.time)} "
            f"frames are shown from {source.time[0]:.3f} s to {source.time[-1]:.3f} s: choose a range within these"
        )
    source.keep(source.index[shown])
