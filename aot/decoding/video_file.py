"""Video files, decoded by PyAV (FFmpeg); every frame is the one its time stamp says, or an error.

A decoded picture carries its time stamp, and the packets told beforehand which time stamps there are (VideoProbe). So a
frame that does not decode, comes twice, is left out or has another size is noticed when it should come.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.decoding.base import FrameSource
from aot.decoding.probe import open_container, probe_video, quarter_turns, repair_hint, shown_size
from aot.errors import DecodeError
from aot.types import Int64Array, UInt8Array

# On two cores two threads halve the wall time, four bring nothing more. PyAV's log must stay off with them (it is, as
# long as nobody sets a level): its callback waits for the GIL that the decoding thread holds, and both hang (seen with
# PyAV 18.1 on a damaged H.264 file).
NUM_THREADS = 2

# A seek empties the decoder's pipeline of a few frames; over shorter distances decoding on is as fast.
WORTHWHILE_SEEK = 16


class VideoFile(FrameSource):
    """The frames of a video file that are shown, all of them, at the size at which they are shown.

    Args:
        path: any container and codec that FFmpeg reads, with a time stamp for each frame.
    Raises:
        DecodeError: the file is no video, or frames of it cannot be decoded (found out as they are read).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._probe = probe_video(path)
        super().__init__(
            index=np.arange(self._probe.num_frames, dtype=np.int64),
            time=self._probe.time,
            width=self._probe.width,
            height=self._probe.height,
            fps=self._probe.fps,
            num_source_frames=self._probe.num_frames,
        )
        self._is_closed = False
        self._container: Any = None
        self._pictures: Iterator[Any] = iter(())
        self._next = 0
        self._ahead: Any = None
        self._start()

    def close(self) -> None:
        self._is_closed = True
        self._let_go()

    def _read(self, index: Int64Array) -> UInt8Array:
        if self._is_closed:
            raise DecodeError(f"{self._path}: is closed; expected to be read inside its `with` block")
        rgb = np.empty((len(index), self.height, self.width, 3), dtype=np.uint8)
        for row, frame in enumerate(index.tolist()):
            if row and frame == index[row - 1]:
                rgb[row] = rgb[row - 1]
                continue
            self._go_towards(frame)
            while self._next < frame:
                self._take()
            rgb[row] = _as_shown(self._take(), self._path)
        return rgb

    def _go_towards(self, frame: int) -> None:
        """Stand at or before `frame`, by a seek where that pays."""
        if 0 <= frame - self._next < WORTHWHILE_SEEK:
            return
        restarts = self._probe.restart_frame[self._probe.restart_frame <= frame]
        if self._next <= frame and (not len(restarts) or restarts[-1] < self._next + WORTHWHILE_SEEK):
            return
        # Some containers seek by decoding time and land one key frame late, MPEG-TS anywhere: where it led is told
        # by the picture that comes, and what is too late is tried again from further back.
        for restart in reversed(restarts[-3:].tolist()):
            self._seek(restart)
            if self._next <= frame:
                return
        self._start()

    def _start(self) -> None:
        """Begin at the beginning."""
        self._let_go()
        self._next = 0
        try:
            self._container = open_container(self._path)
            stream = self._container.streams[self._probe.stream_index]
            stream.thread_type, stream.thread_count = "AUTO", NUM_THREADS
            self._pictures = self._container.decode(stream)
        except av.FFmpegError as exc:
            raise self._missing(0, exc.strerror or type(exc).__name__) from exc

    def _seek(self, restart: int) -> None:
        """Stand wherever a seek to a frame leads; beyond the end where that is unknown."""
        if self._next == 0:
            # What x264 says of itself in the first packet decides how its later ones are read (H.264 in 4:4:4).
            self._take()
        stream = self._container.streams[self._probe.stream_index]
        try:
            self._container.seek(int(self._probe.pts[restart]), stream=stream, backward=True)
        except av.FFmpegError as exc:
            raise self._missing(restart, exc.strerror or type(exc).__name__) from exc
        self._pictures, self._next = self._container.decode(stream), restart
        self._ahead = self._next_picture()
        pts = None if self._ahead is None else self._ahead.pts
        place = self._probe.num_frames if pts is None else int(np.searchsorted(self._probe.pts, pts))
        is_known = place < self._probe.num_frames and self._probe.pts[place] == pts
        self._next = place if is_known else self._probe.num_frames

    def _let_go(self) -> None:
        self._pictures, self._ahead = iter(()), None
        if self._container is not None:
            self._container.close()
            self._container = None

    def _take(self) -> Any:
        """Decode the next frame, and see that it is the next."""
        frame = self._next
        shown, self._ahead = self._ahead or self._next_picture(), None
        if shown is None:
            raise self._missing(frame, "no more pictures come")
        if shown.pts != self._probe.pts[frame]:
            raise self._missing(frame, f"a picture with another time stamp comes ({shown.pts})")
        if shown.is_corrupt:
            raise self._missing(frame, "its picture is damaged")
        size = shown_size(shown, self._path)
        if size != (self.width, self.height):
            raise DecodeError(
                f"{self._path}: the size changes to {size[0]}x{size[1]} px at frame {frame} "
                f"({self._probe.time[frame]:.3f} s), expected {self.width}x{self.height} px throughout; "
                f"{repair_hint(self._path)}"
            )
        self._next = frame + 1
        return shown

    def _next_picture(self) -> Any:
        try:
            return next(self._pictures, None)
        except av.FFmpegError as exc:
            raise self._missing(self._next, exc.strerror or type(exc).__name__) from exc

    def _missing(self, frame: int, reason: str) -> DecodeError:
        return DecodeError(
            f"{self._path}: frame {frame} ({self._probe.time[frame]:.3f} s) cannot be decoded: {reason}; "
            f"expected {self._probe.num_frames} frames, as many as the file says it shows; {repair_hint(self._path)}"
        )


def first_frame(path: Path) -> UInt8Array:
    """The first picture of a video file, (H, W, 3) RGB; the rest of the file is not looked at.

    Raises:
        DecodeError: the file is no video, or its first picture cannot be decoded.
    """
    try:
        with open_container(path) as container:
            stream = container.streams.best("video")
            picture = None if stream is None else next(container.decode(stream), None)
    except av.FFmpegError as exc:
        raise DecodeError(f"{path}: its first picture cannot be decoded: {exc.strerror}") from exc
    if picture is None:
        raise DecodeError(f"{path}: no picture can be decoded; expected a video file")
    return _as_shown(picture, path)


def _as_shown(picture: Any, path: Path) -> UInt8Array:
    """(H, W, 3) RGB, turned as the file says."""
    return np.rot90(picture.to_ndarray(format="rgb24"), quarter_turns(picture, path))
