"""Open the frames of a clip with the decoder for its kind of source."""

from __future__ import annotations

import math

import numpy as np

from aot.decoding.base import Decoder, FrameSource
from aot.errors import DecodeError
from aot.types import BoolArray, Clip, Float64Array, UInt8Array

# Images that may contain several pages, of which FFmpeg reads only the first.
_STACK_SUFFIXES = frozenset({".tif", ".tiff"})


def open_source(clip: Clip, decoder: Decoder | None = None) -> FrameSource:
    """Open the frames of a clip between its start_seconds and end_seconds.

    Args:
        clip: its source is a video file or a folder with one image per frame.
        decoder: of video files; None: PyAV. Folders are always read by OpenCV.
    Returns:
        The frames whose presentation time is in [start_seconds, end_seconds).
    Raises:
        DecodeError: the source cannot be read, or has no frame in that time range.
    """
    source = _open(clip, decoder)
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

        return first_frame_of_folder(clip.source, clip.pattern)
    _refuse_stack(clip)
    from aot.decoding.video_file import first_frame as first_frame_of_video

    return first_frame_of_video(clip.source, clip.stream)


def _open(clip: Clip, decoder: Decoder | None) -> FrameSource:
    # One adapter per kind of source; its library is imported only when such a source is opened.
    if clip.source.is_dir():
        from aot.decoding.frame_folder import FrameFolder

        return FrameFolder(clip.source, fps=clip.fps, pattern=clip.pattern)
    _refuse_stack(clip)
    if decoder is not None:
        return decoder.open(clip.source, clip.stream)
    from aot.decoding.video_file import VideoFile

    return VideoFile(clip.source, stream=clip.stream)


def _refuse_stack(clip: Clip) -> None:
    if clip.source.suffix.lower() in _STACK_SUFFIXES:
        from aot.decoding.frame_folder import refuse_stack

        refuse_stack(clip.source)


def _keep_time_range(source: FrameSource, clip: Clip) -> None:
    if clip.start_seconds is None and clip.end_seconds is None and clip.expected_frames is None:
        return
    time = source.time
    shown = _within(time, clip.start_seconds, clip.end_seconds)
    if clip.expected_frames is not None and not _is_expected(source, shown, clip.expected_frames):
        # A dataset may count its times from the first frame, and not from the start of the file.
        time = source.time - source.time[0]
        from_first = _within(time, clip.start_seconds, clip.end_seconds)
        if not _is_expected(source, from_first, clip.expected_frames):
            raise _unexpected(source, shown, clip)
        shown = from_first
    if clip.part_seconds is not None:
        in_part = shown & _within(time - (clip.start_seconds or 0.0), *clip.part_seconds)
        if not in_part.any():
            first, last = source.time[shown][[0, -1]]
            raise DecodeError(
                f"{clip.source}: no frame {_range(*clip.part_seconds)} of the clip {clip.clip_id!r}, whose "
                f"{np.count_nonzero(shown)} frames take {last - first:.3f} s: choose a range that includes frames"
            )
        shown = in_part
    if not shown.any():
        raise DecodeError(
            f"{clip.source}: no frame {_range(clip.start_seconds, clip.end_seconds)}; {_shown(source)}: choose a range "
            f"that includes frames"
        )
    source.keep(source.index[shown])


def _within(time: Float64Array, start: float | None, end: float | None) -> BoolArray:
    return (time >= (-math.inf if start is None else start)) & (time < (math.inf if end is None else end))


def _is_expected(source: FrameSource, shown: BoolArray, expected: tuple[int, int | None]) -> bool:
    first, length = expected
    return bool(shown.any()) and source.index[shown][0] == first and length in (None, np.count_nonzero(shown))


def _unexpected(source: FrameSource, shown: BoolArray, clip: Clip) -> DecodeError:
    """The error for a clip whose frames are not those that its dataset lists."""
    first, length = clip.expected_frames or (0, None)
    found = source.index[shown]
    has = f"has {len(found)} frames, from frame {found[0]} on" if len(found) else "has no frame"
    expected = f"frame {first} on" if length is None else f"frame {first} on, {length} of them"
    return DecodeError(
        f"{clip.source}: the clip {clip.clip_id!r} {has}; expected those from {expected}, as the dataset lists it: "
        f"download or record the video again, or correct the list"
    )


def _range(start: float | None, end: float | None) -> str:
    """A time range, of which at least one end is given."""
    if end is None:
        return f"from start_seconds={start:g} on"
    if start is None:
        return f"before end_seconds={end:g}"
    return f"from start_seconds={start:g} to end_seconds={end:g}"


def _shown(source: FrameSource) -> str:
    """When the frames of a source are shown."""
    first, last = source.time[0], source.time[-1]
    if len(source.time) == 1:
        return f"its only frame is shown at {first:.3f} s"
    return f"its {len(source.time)} frames are shown from {first:.3f} s to {last:.3f} s"
