"""One reader of decord: the frames of a file, or of a piece of it, strictly one after another."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding.decord_library import load_decord
from aot.decoding.probe import VideoProbe
from aot.types import Float64Array, UInt8Array

# decord replaces frames that it cannot decode by others. This fraction of the frames may be replaced before it raises.
_NO_REPLACED_FRAME = 1e-9

# On two cores more threads are no faster.
_NUM_THREADS = 2


class ReaderError(Exception):
    """decord cannot read the frames; the message says why."""


class DecordReader:
    """The frames [start, end) of a video.

    Only `take` returns frames. decord's `get_batch` and its seeks are not used: they return wrong frames in open
    groups, and were reported to hang.

    Args:
        source: the file, or the packets of these frames as a file in memory.
        probe: of the file.
        start, end: source frames.
    Raises:
        ReaderError: decord cannot open it, or finds other frames than the probe.
    """

    def __init__(self, source: Path | bytes, probe: VideoProbe, start: int, end: int) -> None:
        decord, self._log = load_decord()
        self._problems_before = self._log.num_problems if self._log else 0
        messages_before = self._log.num_messages if self._log else 0
        self.position = start
        """The frame that `take` returns next."""
        self.end = end
        self._shape = (probe.height, probe.width, 3)
        # The absolute path cannot be mistaken for a protocol.
        opened = io.BytesIO(source) if isinstance(source, bytes) else str(source.absolute())
        # DECORDError is an Exception; the constructor also checks by `assert`, and ctypes encodes the path.
        self._errors = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, AssertionError, ValueError)
        try:
            self._reader: Any = decord.VideoReader(opened, num_threads=_NUM_THREADS, fault_tol=_NO_REPLACED_FRAME)
            num_frames = len(self._reader)
            starts = self._reader.get_frame_timestamp(range(num_frames))[:, 0].astype(np.float64)
        except self._errors as exc:
            raise ReaderError(f"decord cannot open it ({_reason(exc)})") from exc
        if num_frames != end - start:
            raise ReaderError(f"decord counts {num_frames} frames, but {end - start} are shown")
        # The times of a piece are rounded to ms by Matroska.
        if isinstance(source, Path) and not _are_equal_times(starts, probe.time):
            raise ReaderError("decord gives its frames other times")
        self.is_watched = self._log is not None and self._log.num_messages > messages_before
        """Whether warnings of decord's FFmpeg are noticed: opening a file always writes to its log."""

    @property
    def has_problem(self) -> bool:
        """Whether decord's FFmpeg has reported a problem since this reader was opened; other readers count too."""
        return self._log is not None and self._log.num_problems > self._problems_before

    def take(self) -> UInt8Array:
        """The frame at the position, (H, W, 3) RGB; the position moves to the next one.

        Raises:
            ReaderError: it cannot be decoded.
        """
        try:
            image = self._reader.next().asnumpy()
        except (*self._errors, StopIteration) as exc:
            raise ReaderError(f"decord cannot decode frame {self.position} ({_reason(exc)})") from exc
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ReaderError(f"decord returns frame {self.position} with the shape {image.shape}")
        self.position += 1
        return np.asarray(image)


def _are_equal_times(first: Float64Array, second: Float64Array) -> bool:
    """Whether two ascending lists of times are equal but for their start; decord's are rounded to single precision."""
    if len(first) == 1:
        return True
    tolerance = 0.4 * np.diff(second).min()
    return bool((np.abs((first - first[0]) - (second - second[0])) <= tolerance).all())


def _reason(error: Exception) -> str:
    """The reason in an error of decord, without the time and the place in its source code."""
    lines = str(error).strip().splitlines()
    reason = re.sub(r"^(\[[\d:]+\] )?(\S+\.(cc|h):\d+: )?(\[.*?\] ?)?", "", lines[0]) if lines else ""
    return reason.rstrip(".") or type(error).__name__
