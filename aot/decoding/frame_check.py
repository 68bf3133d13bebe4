"""Checks that every frame a video's packets promise is there: it decodes, in its turn, at the size of the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.decoding.probe import VideoProbe, ffmpeg_path, how_to_mend, how_to_rewrite
from aot.errors import DecodeError

# The pictures are not looked at, only their time stamps: leaving out the last steps of decoding saves 15 to 30 %
# (1.9 instead of 2.2 ms a frame of CPU time at 854x480).
FAST_OPTIONS = {"skip_loop_filter": "all", "skip_idct": "all"}

# On two cores two threads halve the wall time; PyAV's log must stay off with them, its callback then waits for the
# GIL that the decoding thread holds (a hang, seen with PyAV 18.1 on a corrupted H.264 file).
NUM_THREADS = 2


class FrameCheck:
    """Decodes with PyAV what another decoder without time stamps is about to decode, each frame once.

    It costs about as much as that decoding itself, and is the only sign of a decoder that leaves out a frame without
    a word: from there on every frame would be taken for the one before it.
    """

    def __init__(self, path: Path, probe: VideoProbe) -> None:
        self._path = path
        self._probe = probe
        self._is_checked = np.zeros(probe.num_frames, dtype=np.bool_)
        self._lands_on: dict[int, bool] = {}
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._next = -1

    def check_begin(self) -> None:
        """Check that a seek to the beginning leads to the first packet (decord begins with one).

        Raises:
            DecodeError: it does not, as in MPEG-TS; the first frames would be missed and all others miscounted.
        """
        first, lowest = self._probe.begin
        if self._landing(lowest) != first:
            raise DecodeError(
                f"{self._path}: a seek to its beginning misses its first frame; expected a container with an index, "
                f"such as MP4 or Matroska: {how_to_rewrite(self._path)}"
            )

    def restart_before(self, frame: int) -> tuple[int, int] | None:
        """Find the last frame ≤ `frame` to which a seek leads exactly, and its packet; None: only a fresh start."""
        row = int(np.searchsorted(self._probe.restart_frame, frame, side="right")) - 1
        while row >= 0 and not self._seek_lands_on(row):
            row -= 1
        return (int(self._probe.restart_frame[row]), int(self._probe.restart_packet[row])) if row >= 0 else None

    def check(self, start: int, stop: int) -> None:
        """Check that the frames [start, stop) are there.

        Raises:
            DecodeError: one is not, or has another size.
        """
        unchecked = np.flatnonzero(~self._is_checked[start:stop])
        if len(unchecked) == 0:
            return
        first = start + int(unchecked[0])
        if first != self._next:
            self._start_at_or_before(first)
        while self._next < stop:
            self._check_next()

    def close(self) -> None:
        """Close the file."""
        self._decoded = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _seek_lands_on(self, row: int) -> bool:
        # Some containers seek by decoding time and land one key frame off, MPEG-TS anywhere; only a look tells.
        if row not in self._lands_on:
            pts = self._pts_of_restart(row)
            self._lands_on[row] = self._landing(pts) == pts
        return self._lands_on[row]

    def _landing(self, pts: int) -> int | None:
        """Time stamp of the packet to which a seek backwards from `pts` leads."""
        stream = self._seek(pts)
        packet = next(self._container.demux(stream), None)
        return None if packet is None else packet.pts

    def _pts_of_restart(self, row: int) -> int:
        return int(self._probe.pts[self._probe.restart_frame[row]])

    def _seek(self, pts: int) -> Any:
        stream = self._open()
        self._container.seek(pts, stream=stream, backward=True)
        return stream

    def _open(self) -> Any:
        self.close()
        self._next = -1
        self._container = av.open(ffmpeg_path(self._path))
        stream = self._container.streams[self._probe.stream_index]
        stream.thread_type, stream.thread_count = "AUTO", NUM_THREADS
        stream.codec_context.options = FAST_OPTIONS
        return stream

    def _start_at_or_before(self, frame: int) -> None:
        restart = self.restart_before(frame)
        if restart is None or restart[0] == 0:
            stream, start = self._open(), 0
        else:
            start = restart[0]
            stream = self._seek(int(self._probe.pts[start]))
        self._decoded, self._next = self._container.decode(stream), start

    def _check_next(self) -> None:
        frame, shown = self._next, self._decode()
        if shown is None:
            raise self._missing(frame, "no more pictures come")
        if shown.pts != self._probe.pts[frame]:
            raise self._missing(frame, f"a picture with another time stamp comes ({shown.pts})")
        turned = shown.rotation % 180 != 0
        size = (shown.height, shown.width) if turned else (shown.width, shown.height)
        if size != (self._probe.width, self._probe.height):
            raise DecodeError(
                f"{self._path}: the size changes to {size[0]}x{size[1]} px at frame {frame} "
                f"({self._probe.time[frame]:.3f} s), expected {self._probe.width}x{self._probe.height} px throughout; "
                f"{how_to_mend(self._path)}"
            )
        self._is_checked[frame] = True
        self._next = frame + 1

    def _decode(self) -> Any:
        try:
            return next(self._decoded, None)
        except av.FFmpegError as exc:
            raise self._missing(self._next, exc.strerror or type(exc).__name__) from exc

    def _missing(self, frame: int, reason: str) -> DecodeError:
        return DecodeError(
            f"{self._path}: frame {frame} ({self._probe.time[frame]:.3f} s) cannot be decoded: {reason}; "
            f"expected {self._probe.num_frames} frames, as many as the file says it shows; {how_to_mend(self._path)}"
        )
