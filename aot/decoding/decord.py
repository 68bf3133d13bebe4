"""decord (FFmpeg) as the decoder of video files whose frames it can be verified to return; PyAV decodes the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from annotated_types import Gt

from aot.decoding.base import FrameSource
from aot.decoding.decord_file import REPORTED_PROBLEMS, DecordFile, Unverified
from aot.decoding.decord_library import decord_version, load_decord
from aot.decoding.probe import probe_video
from aot.decoding.video_file import VideoFile

_log = logging.getLogger("aot.decoding")


class DecordDecoder:
    """Decodes with decord where its frames can be verified, otherwise with PyAV.

    Args:
        max_buffer_gb: decoded frames in 10^9 bytes that decord may hold ahead of the reader. It decodes ahead without a
            limit, so a video of more frames is given to it in pieces of this size.
    Raises:
        ConfigError: decord2 is not installed, or an old decord is.
    """

    def __init__(self, max_buffer_gb: Annotated[float, Gt(0)] = 1.0) -> None:
        decord_version()
        self.max_buffer_bytes = round(max_buffer_gb * 1e9)

    def load_library(self) -> None:
        """Load decord; while it is imported, other modules are hidden, which another thread may need."""
        load_decord()

    def depends_on_others(self, source: FrameSource) -> bool:
        """Whether PyAV took a file because of the log, which the FFmpeg of all open files writes to."""
        return source.decoder_fallback == REPORTED_PROBLEMS

    def open(self, path: Path, stream: int | None = None) -> FrameSource:
        """See `Decoder.open`. The decoder of a file is chosen here, and recorded with the reason if it is PyAV."""
        probe = probe_video(path, stream)
        try:
            return DecordFile(path, probe, self.max_buffer_bytes)
        except Unverified as reason:
            _log.info("%s: decoded by pyav: %s", path, str(reason))  # a record must not keep the frames
            return VideoFile(path, fallback=str(reason), stream=stream)
