"""Approximate size of a clip, read from headers only: fast, and used only for planning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from aot.errors import DecodeError
from aot.types import Clip


@dataclass(frozen=True)
class ClipSize:
    """Size of a source according to its header; the decoded number of frames may differ slightly."""

    num_frames: int
    """Number of frames of the source."""
    width: int
    """px."""
    height: int
    """px."""
    fps: float
    """Average frames per second."""


def read_size(source: Path, pattern: str | None = None, stream: int | None = None) -> ClipSize:
    """Read the header of a video file, or the file list of a folder and the header of its first image.

    Args:
        source: of a clip.
        pattern: of the names of the frames in a folder; None: all images.
        stream: number of the video stream of a file, see `aot.decoding.streams`.
    Raises:
        DecodeError: the source is neither a video file nor a folder of images.
        OSError: the folder cannot be listed.
    """
    return _folder_size(source, pattern) if source.is_dir() else _video_size(source, stream)


def num_kept_frames(size: ClipSize, clip: Clip, frame_interval: int, sample_fps: float | None = None) -> int:
    """Approximate number of kept frames, at least 1: every frame_interval-th of those shown in the time range.

    Args:
        size: of the source.
        clip: its time range.
        frame_interval: ≥ 1.
        sample_fps: frames per second of which the interval counts; None: all.
    """
    number = num_shown_frames(size, clip)
    if sample_fps is not None:
        number = min(number, math.ceil(number / _fps(size, clip) * sample_fps))
    return max(1, -(-number // frame_interval))


def num_shown_frames(size: ClipSize, clip: Clip) -> int:
    """Approximate number of frames between start_seconds and end_seconds; 0 if the clip ends before its range."""
    fps = _fps(size, clip)
    duration = size.num_frames / fps
    start = max(0.0, clip.start_seconds or 0.0)
    end = duration if clip.end_seconds is None else min(duration, clip.end_seconds)
    if clip.part_seconds is not None:
        part_start, part_end = clip.part_seconds
        end = end if part_end is None else min(end, start + part_end)
        start = max(start, start + (part_start or 0.0))
    return min(size.num_frames, round(max(0.0, end - start) * fps))


def _fps(size: ClipSize, clip: Clip) -> float:
    """A video file has its own frame rate; the rate of a folder is that of the clip."""
    return clip.fps if clip.fps is not None and clip.source.is_dir() else size.fps


def _video_size(source: Path, number: int | None) -> ClipSize:
    import av

    from aot.decoding.container import ffmpeg_reason, open_container
    from aot.decoding.streams import chosen_stream

    try:
        with open_container(source) as container:
            stream = chosen_stream(container, source, number)
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            seconds = (container.duration or 0) / av.time_base
            num_frames = stream.frames or round(seconds * fps)
            return ClipSize(max(1, num_frames), stream.width, stream.height, fps)
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise DecodeError(f"{source}: its header cannot be read: {ffmpeg_reason(exc)}; expected a video file") from exc


def _folder_size(source: Path, pattern: str | None) -> ClipSize:
    from PIL import Image

    from aot.decoding.frame_folder import DEFAULT_FPS
    from aot.images.frames import image_files
    from aot.images.masks import image_reason

    files = image_files(source, pattern)
    try:
        with Image.open(files[0]) as image:  # reads only the header
            width, height = image.size
    except (OSError, Image.DecompressionBombError) as exc:
        raise DecodeError(f"{files[0]}: its header cannot be read: {image_reason(exc)}; expected an image") from exc
    return ClipSize(len(files), width, height, DEFAULT_FPS)
