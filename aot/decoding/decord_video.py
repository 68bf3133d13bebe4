"""Video files, decoded by decord and checked by PyAV.

decord hands out pictures without their time stamps, gives the last good one again where it cannot decode, and misses
by some frames when it seeks into open groups of pictures. So its own indexing is not used: frames are taken one after
the other, from the beginning or from a key frame to which a seek is known to lead, and are counted here; every frame
passed on the way has been seen to decode (FrameCheck).
"""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding.base import FrameSource
from aot.decoding.frame_check import FrameCheck
from aot.decoding.probe import ffmpeg_path, how_to_mend, how_to_rewrite, probe_video
from aot.errors import ConfigError, DecodeError
from aot.types import Int64Array, UInt8Array

LOWEST_DECORD = 3

# On two cores two threads bring a frame of 854x480 from 6 to 3.3 ms of wall time, four bring no more.
NUM_THREADS = 2

# decord's own count of frames that it repeats in place of those it cannot decode: the first one raises. (0 turns the
# count off.)
NO_REPEATS = 1e-9

# A seek empties the decoder's pipeline of a few frames; over shorter distances decoding on is as fast.
WORTHWHILE_SEEK = 16


# How many frames ahead of the one asked for decord may be when it finds one that it cannot decode.
LOOK_AHEAD = 64

# Reading backwards, the frames passed on the way from the key frame are the ones wanted next. Keeping some makes a
# pass over one group of 250 frames of 854x480 1.8 times the work of reading forwards in place of 5.3 times.
KEPT_BYTES = 128 * 2**20


class DecordVideo(FrameSource):
    """The frames of a video file that are shown, all of them, at the size at which they are shown.

    Args:
        path: any container and codec that FFmpeg reads, with a time stamp for each frame.
    Raises:
        DecodeError: the file is no video, or frames of it cannot be decoded (found out as they are read).
        ConfigError: decord is missing, or is the package `decord` in place of `decord2`.
    """

    def __init__(self, path: Path) -> None:
        self._decord = _import_decord()
        # What decord raises: no class of its own is the base of both its errors, and some are plain ones.
        self._errors = (
            self._decord.DECORDError,
            self._decord.DECORDLimitReachedError,
            RuntimeError,
            AssertionError,
            StopIteration,
        )
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
        self._check = FrameCheck(path, self._probe)
        self._next = 0
        self._is_backwards = False
        self._kept: deque[tuple[int, UInt8Array]] = deque(maxlen=KEPT_BYTES // (self.width * self.height * 3))
        self._reader = self._open()
        self._check.check_begin()

    def close(self) -> None:
        """Close the file; decord holds it for as long as its reader lives."""
        self._reader = None
        self._kept.clear()
        self._check.close()

    def _read(self, index: Int64Array) -> UInt8Array:
        if self._reader is None:
            raise DecodeError(f"{self._path}: is closed; expected to be read inside its `with` block")
        rgb = np.empty((len(index), self.height, self.width, 3), dtype=np.uint8)
        kept = dict(self._kept)
        for row, frame in enumerate(index.tolist()):
            if row and frame == index[row - 1]:
                rgb[row] = rgb[row - 1]
            elif frame in kept:
                rgb[row] = kept[frame]
            else:
                rgb[row] = self._decode(frame)
        return rgb

    def _decode(self, frame: int) -> UInt8Array:
        self._go_towards(frame)
        self._check.check(self._next, frame + 1)
        wanted = set(self.index[slice(*np.searchsorted(self.index, (self._next, frame)))].tolist())
        while self._next < frame:
            passed = self._next
            picture = self._take()
            if self._is_backwards and passed in wanted:
                self._kept.append((passed, picture.asnumpy()))
        decoded: UInt8Array = self._take().asnumpy()
        return decoded

    def _go_towards(self, frame: int) -> None:
        """Stand at or before `frame`, as close as a seek that can be trusted brings us."""
        ahead = frame - self._next
        if ahead < 0 or not self._is_backwards or ahead >= WORTHWHILE_SEEK:
            self._is_backwards = ahead < 0
            self._kept.clear()
        if 0 <= ahead < WORTHWHILE_SEEK:
            return
        restart = self._check.restart_before(frame)
        if restart is not None and (ahead < 0 or restart[0] - self._next >= WORTHWHILE_SEEK):
            self._next = restart[0]
            self._seek(restart[1])
        elif ahead < 0:
            self._next = 0
            self._reader = self._open()

    def _seek(self, packet: int) -> None:
        # decord seeks backwards to the key frame at or before the time asked for, forwards to one after it. From the
        # last packet every seek is one backwards. What it counts is packets in the order of presentation.
        try:
            self._reader.seek(self._probe.num_packets - 1)
            self._reader.seek(packet)
        except self._errors as exc:
            raise DecodeError(
                f"{self._path}: cannot seek to packet {packet}: {_reason(exc)}; {how_to_mend(self._path)}"
            ) from exc

    def _open(self) -> Any:
        path = ffmpeg_path(self._path)
        try:
            reader = self._decord.VideoReader(path, num_threads=NUM_THREADS, fault_tol=NO_REPEATS)
        except self._errors as exc:
            raise DecodeError(
                f"{self._path}: decord cannot open it: {_reason(exc)}; expected a container that says how long it is: "
                f"{how_to_rewrite(self._path)}"
            ) from exc
        if len(reader) != self._probe.num_packets:
            raise DecodeError(
                f"{self._path}: decord finds {len(reader)} packets, expected {self._probe.num_packets} as PyAV does; "
                f"{how_to_mend(self._path)}"
            )
        return reader

    def _take(self) -> Any:
        """Decode the next frame."""
        try:
            picture = self._reader.next()
        except self._errors as exc:
            # Its threads run ahead, so it fails some frames too early: which frame it is, the check knows.
            self._check.check(self._next, min(self._next + LOOK_AHEAD, self._probe.num_frames))
            raise DecodeError(
                f"{self._path}: decord cannot decode frame {self._next} ({self._probe.time[self._next]:.3f} s): "
                f"{_reason(exc)}; {how_to_mend(self._path)}"
            ) from exc
        expected = (self.height, self.width, 3)
        if picture.shape != expected:
            raise DecodeError(
                f"{self._path}: decord gives frame {self._next} as {picture.shape}, expected {expected} "
                f"(it cannot hold pictures less than about 20 px wide)"
            )
        self._next += 1
        return picture


def _import_decord() -> Any:
    mend = "pip uninstall --yes decord decord2 && pip install 'decord2>=3.4'"
    try:
        import decord
    except ImportError as exc:
        raise ConfigError(f"decord cannot be imported: {exc}; video files need it: {mend}") from exc
    if int(decord.__version__.split(".")[0]) < LOWEST_DECORD:
        raise ConfigError(
            f"the module decord is of version {decord.__version__}, from the package `decord`, which is no longer "
            f"maintained; expected {LOWEST_DECORD} or later from `decord2`, which has the same module: {mend}"
        )
    decord.logging.set_level(decord.logging.QUIET)  # what went wrong is in the errors
    return decord


def _reason(exc: BaseException) -> str:
    """What decord says, without its time, source file and stack."""
    first = (str(exc) or type(exc).__name__).splitlines()[0]
    return re.sub(r"\[[\d:]+\] \S+:\d+: |\[/.*\](?=[A-Z])", "", first).strip()
