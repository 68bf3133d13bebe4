"""Video files, decoded by PyAV (FFmpeg); the time stamp of every decoded frame is checked.

The packets are read first and give the time stamps of all frames (VideoProbe); each decoded frame carries its own. So a
frame that cannot be decoded, is repeated, is missing or changes its size is reported where it should appear.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from aot.decoding.base import FrameSource
from aot.decoding.container import ffmpeg_reason, open_container, repair_command, repair_hint
from aot.decoding.displayed import displayed_image, orientation_of
from aot.decoding.probe import probe_video
from aot.decoding.streams import chosen_stream
from aot.errors import DecodeError
from aot.types import Int64Array, UInt8Array

# A seek discards the few frames in the decoder's pipeline; over shorter distances, decoding without a seek is as fast.
MIN_SEEK_FRAMES = 16

_DAMAGED = "its data are damaged"
_GUESSED = ", because AVI stores no presentation times, and FFmpeg makes up wrong ones for H.264 with B-frames"


class VideoFile(FrameSource):
    """All displayed frames of a video file, at the size at which they are displayed.

    Args:
        path: any container and codec that FFmpeg reads, with one time stamp per frame.
        fallback: why the configured decoder did not take the file; empty if this is the configured one.
        stream: number of the video stream to read, see `chosen_stream`.
    Raises:
        DecodeError: the file is not a video, or a frame cannot be decoded (raised when it is read).
    """

    def __init__(self, path: Path, fallback: str = "", stream: int | None = None) -> None:
        self._path = path
        self._probe = probe_video(path, stream)
        super().__init__(
            index=np.arange(self._probe.num_frames, dtype=np.int64),
            time=self._probe.time,
            width=self._probe.width,
            height=self._probe.height,
            pixel_aspect=self._probe.first_frame.pixel_aspect,
            fps=self._probe.fps,
            num_source_frames=self._probe.num_frames,
            decoder="pyav",
            decoder_version=av.__version__,
            decoder_fallback=fallback,
            stream=self._probe.stream,
        )
        self.num_taken = 0
        """Number of frames decoded so far, wanted or not."""
        self._reformatter = VideoReformatter()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = 0
        self._ahead: Any = None
        self._start()

    def _read(self, index: Int64Array) -> UInt8Array:
        rgb = np.empty((len(index), self.height, self.width, 3), dtype=np.uint8)
        for row, frame in enumerate(index.tolist()):
            self._go_to(frame)
            while self._next < frame:
                self._take()
            rgb[row] = displayed_image(self._take(), self._path, self._reformatter)
        return rgb

    def frames_to_decode(self, frame: int) -> int:
        """The work of reading `frame` next, in frames; a seek counts as the frames that it discards."""
        if not self._seeks_to(frame):
            return frame - self._next + 1
        restarts = self._probe.restart_frame[self._probe.restart_frame <= frame]
        return MIN_SEEK_FRAMES + frame - int(restarts[-1] if len(restarts) else 0) + 1

    def _seeks_to(self, frame: int) -> bool:
        """Whether a seek is faster than decoding all frames up to `frame`, or `frame` lies behind."""
        if 0 <= frame - self._next < MIN_SEEK_FRAMES:
            return False
        restarts = self._probe.restart_frame[self._probe.restart_frame <= frame]
        return self._next > frame or bool(len(restarts) and restarts[-1] >= self._next + MIN_SEEK_FRAMES)

    def _go_to(self, frame: int) -> None:
        """Move to `frame` or to a frame before it; seek if that is faster."""
        if not self._seeks_to(frame):
            return
        restarts = self._probe.restart_frame[self._probe.restart_frame <= frame]
        # Some containers seek by decoding time and arrive one key frame late, MPEG-TS at any frame. The time stamp of
        # the first frame after the seek gives the position; if it is too late, try an earlier key frame.
        for restart in reversed(restarts[-3:].tolist()):
            self._seek(restart)
            if self._next <= frame:
                return
        self._start()

    def _start(self) -> None:
        """Open the file and start at its first frame."""
        self._release()
        self._next = 0
        try:
            self._container = open_container(self._path)
            stream = self._container.streams[self._probe.stream_index]
            # With more threads, a frame is returned before the thread that decodes it has marked it as damaged: of 40
            # frames damaged just behind a seek, 31 were not reported. Blocks are decoded ahead of their use anyway.
            stream.thread_type, stream.thread_count = "NONE", 1
            self._decoded = self._container.decode(stream)
        except av.FFmpegError as exc:
            raise self._missing(0, ffmpeg_reason(exc, invalid=_DAMAGED)) from exc

    def _seek(self, restart: int) -> None:
        """Seek to a key frame and set the position to where the seek arrived; to the end if that is unknown."""
        if self._next == 0:
            # The first packet of x264 contains its version, which decides how later ones are decoded (H.264 in 4:4:4).
            self._take()
        stream = self._container.streams[self._probe.stream_index]
        try:
            self._container.seek(int(self._probe.pts[restart]), stream=stream, backward=True)
        except av.FFmpegError as exc:
            raise self._missing(restart, ffmpeg_reason(exc, invalid=_DAMAGED)) from exc
        self._decoded, self._next = self._container.decode(stream), restart
        self._ahead = self._next_decoded()
        pts = None if self._ahead is None else self._ahead.pts
        place = self._probe.num_frames if pts is None else int(np.searchsorted(self._probe.pts, pts))
        is_known = place < self._probe.num_frames and self._probe.pts[place] == pts
        self._next = place if is_known else self._probe.num_frames

    def _release(self) -> None:
        self._decoded, self._ahead = iter(()), None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _take(self) -> Any:
        """Decode the next frame and check its time stamp and size."""
        frame = self._next
        decoded, self._ahead = self._ahead or self._next_decoded(), None
        if decoded is None:
            raise self._missing(frame, "the decoder returns no more frames")
        if decoded.pts != self._probe.pts[frame]:
            guessed = _GUESSED if self._container.format.name == "avi" else ""
            raise self._missing(frame, f"the decoder returns a frame with another time stamp ({decoded.pts}){guessed}")
        if decoded.is_corrupt:
            raise self._missing(frame, "the decoder reports it as damaged")
        orientation = self._probe.first_frame.orientation
        if orientation_of(decoded, self._path) != orientation:
            raise DecodeError(
                f"{self._path}: frame {frame} ({self._probe.time[frame]:.3f} s) is turned or mirrored in another way "
                f"than the first frame, expected the same for all; re-encode the frames as they are stored: "
                f"{repair_command(self._path, input_options='-noautorotate')}"
            )
        size = orientation.size(decoded.width, decoded.height)
        if size != (self.width, self.height):
            raise DecodeError(
                f"{self._path}: the size changes to {size[0]}x{size[1]} px at frame {frame} "
                f"({self._probe.time[frame]:.3f} s), expected {self.width}x{self.height} px as in the first frame; "
                f"{repair_hint(self._path)}"
            )
        self._next = frame + 1
        self.num_taken += 1
        return decoded

    def _next_decoded(self) -> Any:
        try:
            return next(self._decoded, None)
        except av.FFmpegError as exc:
            raise self._missing(self._next, ffmpeg_reason(exc, invalid=_DAMAGED)) from exc

    def _missing(self, frame: int, reason: str) -> DecodeError:
        return DecodeError(
            f"{self._path}: frame {frame} ({self._probe.time[frame]:.3f} s) cannot be decoded: {reason}; "
            f"expected all {self._probe.num_frames} frames that the packets of the file list; {repair_hint(self._path)}"
        )


def first_frame(path: Path, stream: int | None = None) -> UInt8Array:
    """The first frame of a video file, (H, W, 3) RGB; the rest of the file is not read.

    Args:
        path: the file.
        stream: number of the video stream, see `chosen_stream`.
    Raises:
        DecodeError: the file is not a video, or its first frame cannot be decoded.
    """
    try:
        with open_container(path) as container:
            frame = next(container.decode(chosen_stream(container, path, stream)), None)
    except av.FFmpegError as exc:
        raise DecodeError(
            f"{path}: its first frame cannot be decoded: {ffmpeg_reason(exc)}; expected a video file"
        ) from exc
    if frame is None:
        raise DecodeError(f"{path}: no frame can be decoded; expected a video file")
    return displayed_image(frame, path)
