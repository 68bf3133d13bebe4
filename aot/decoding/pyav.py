"""PyAV (FFmpeg) as the decoder of video files."""

from __future__ import annotations

from pathlib import Path

from aot.decoding.base import FrameSource
from aot.decoding.video_file import VideoFile


class PyAVDecoder:
    """Decodes every file that FFmpeg reads, in constant memory."""

    def open(self, path: Path, stream: int | None = None) -> FrameSource:
        """See `Decoder.open`."""
        return VideoFile(path, stream=stream)
