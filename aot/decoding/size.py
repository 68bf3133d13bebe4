"""How large a clip is, told from headers alone: roughly, fast, and for planning only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aot.errors import DecodeError
from aot.types import Clip


@dataclass(frozen=True)
class ClipSize:
    """What a source's header says of it; a decoder may find a frame more or less."""

    num_frames: int
    """In the whole source."""
    width: int
    height: int
    fps: float


def read_size(source: Path) -> ClipSize:
    """Read the header of a video file, or a folder's list and the header of its first image.

    Raises:
        DecodeError: it is neither.
    """
    return _folder_size(source) if source.is_dir() else _video_size(source)


def num_kept_frames(size: ClipSize, clip: Clip, frame_interval: int) -> int:
    """How many frames of a clip are kept, about: those between its times, one in every frame_interval."""
    start = clip.start_seconds or 0.0
    end = size.num_frames / size.fps if clip.end_seconds is None else clip.end_seconds
    shown = min(size.num_frames, round(max(0.0, end - start) * size.fps))
    return max(1, -(-shown // frame_interval))


def _video_size(source: Path) -> ClipSize:
    import av

    from aot.decoding.probe import open_container

    try:
        with open_container(source) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise DecodeError(f"{source}: no video stream; expected a video file")
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            seconds = (container.duration or 0) / av.time_base
            num_frames = stream.frames or round(seconds * fps)
            return ClipSize(max(1, num_frames), stream.width, stream.height, fps)
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise DecodeError(f"{source}: its header cannot be read: {exc}; expected a video file") from exc


def _folder_size(source: Path) -> ClipSize:
    from PIL import Image

    from aot.decoding.frame_folder import DEFAULT_FPS
    from aot.images.frames import image_files

    files = image_files(source)
    try:
        with Image.open(files[0]) as image:  # reads the header; pixels come on demand
            width, height = image.size
    except OSError as exc:
        raise DecodeError(f"{files[0]}: its header cannot be read: {exc}; expected an image") from exc
    return ClipSize(len(files), width, height, DEFAULT_FPS)
