"""Video files decoded by decord, with PyAV as the judge.

decord is fast, but it returns the images that FFmpeg makes up for damaged data, repeats frames at the end for those
that it could not decode, and decodes ahead without a limit. Therefore

    before the first frame  the file must be of a kind that decord reads like PyAV: all packets displayed, as many as
                            the header counts, 8 bits, even size, the same times, and an equal first frame
    while reading           frames are compared with PyAV's where decord may be wrong (`aot.decoding.verification`)
    order                   decord reads the file, or a piece of it, from start to end; it never seeks
    memory                  what decord reads at a time has at most max_buffer_bytes of frames
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aot.decoding.base import FrameSource
from aot.decoding.decord_library import decord_version
from aot.decoding.decord_reader import DecordReader, ReaderError
from aot.decoding.pieces import Uncuttable, VideoPieces
from aot.decoding.probe import VideoProbe
from aot.decoding.verification import Verifier
from aot.errors import DecodeError
from aot.types import Int64Array, UInt8Array

# Over shorter distances, decoding all frames between is faster than cutting and opening another piece.
MIN_JUMP_FRAMES = 64

# Backwards and at random, longer groups are left to PyAV, because decord decodes a piece to its end. By default,
# x264 puts a key frame at least every 250 frames.
MAX_GROUP_AT_RANDOM = 300

REPORTED_PROBLEMS = "decord's FFmpeg reports problems in the file"
"""Why PyAV takes a file of which FFmpeg has written warnings to the log."""

_log = logging.getLogger("aot.decoding")


class Unverified(Exception):
    """decord's frames cannot be verified for this file; the message says why."""


@dataclass(frozen=True)
class _Piece:
    """Consecutive frames that one reader returns; without a reader, PyAV reads them."""

    start: int
    end: int
    reader: DecordReader | None = None


class DecordFile(FrameSource):
    """All displayed frames of a video file, equal to those of `VideoFile`.

    Args:
        path: the video file.
        probe: of this file.
        max_buffer_bytes: decoded frames that decord may hold.
    Raises:
        Unverified: another decoder must be used.
        DecodeError: PyAV cannot decode the first frame either.
    """

    def __init__(self, path: Path, probe: VideoProbe, max_buffer_bytes: int) -> None:
        _refuse_unverifiable(probe)
        super().__init__(
            index=np.arange(probe.num_frames, dtype=np.int64),
            time=probe.time,
            width=probe.width,
            height=probe.height,
            pixel_aspect=probe.first_frame.pixel_aspect,
            fps=probe.fps,
            num_source_frames=probe.num_frames,
            decoder="decord",
            decoder_version=decord_version(),
            stream=probe.stream,
        )
        self._path = path
        self._probe = probe
        self._max_frames = max_buffer_bytes // (probe.width * probe.height * 3)
        self._fits_buffer = probe.num_frames <= self._max_frames
        self._pieces = VideoPieces(path, probe)
        if not self._fits_buffer:
            self._refuse_uncuttable()
        # The frame after the last one that was wanted: a pass through the clip continues there.
        self._position = 0
        # The first frame of the last read: in a pass backwards, reads end before it.
        self._read_from = 0
        # The last frame that decord has returned, and its number.
        self._last: tuple[int, UInt8Array] | None = None
        first = probe.first_frame
        self._verifier = Verifier(path, first.image if first.pts == probe.pts[0] else None)
        try:
            self._piece = self._first_piece()
        except (Unverified, DecodeError):
            self._verifier.close()
            raise

    def _release(self) -> None:
        self._piece, self._last = _Piece(0, 0), None
        self._pieces.close()
        self._verifier.close()

    def _refuse_uncuttable(self) -> None:
        longest = self._pieces.longest_group
        if longest > self._max_frames:
            raise Unverified(
                f"decoder.max_buffer_gb holds {self._max_frames} of its {self._probe.num_frames} frames, and it has "
                f"{longest} frames between key frames at which it could be cut"
            )

    def _first_piece(self) -> _Piece:
        """The piece with frame 0, which decord and PyAV must decode to the same image."""
        try:
            reader = self._open(0, self._end_of_pass(0))
            if not reader.is_watched:
                raise Unverified("the log of decord's FFmpeg, which reports damaged data, cannot be watched")
            if reader.has_problem:
                raise Unverified(REPORTED_PROBLEMS)
            image = reader.take()
        except (ReaderError, Uncuttable) as exc:
            raise Unverified(str(exc)) from exc
        if not self._verifier.is_right(0, image):
            raise Unverified("decord and PyAV decode its first frame to different images")
        # decord ignores the rotation in the metadata of frames (EXIF, H.264), and applies that of the container.
        turns = self._probe.first_frame.orientation.turns
        if turns and np.array_equal(image, np.rot90(image, turns)):
            raise Unverified("its first frame looks the same when it is turned, so that decord may not turn the others")
        self._last = 0, image
        return _Piece(0, reader.end, reader)

    def _read(self, index: Int64Array) -> UInt8Array:
        rgb = np.empty((len(index), self.height, self.width, 3), dtype=np.uint8)
        for row, frame in enumerate(index.tolist()):
            rgb[row] = self._frame(frame, _end_of_run(index[row:]))
            self._position = frame + 1
        self._read_from = int(index[0])
        return rgb

    def _frame(self, frame: int, last_wanted: int) -> UInt8Array:
        """One frame; the frames from it to last_wanted are read next."""
        if self._last is not None and self._last[0] == frame:
            return self._last[1]
        if not self._leads_to(frame):
            self._piece = self._new_piece(frame, last_wanted)
        if self._piece.reader is None:
            return self._verifier.image(frame)
        try:
            image = self._take(self._piece.reader, frame)
        except ReaderError as exc:
            # decord decodes ahead: the frame that it fails at may be a later one, which PyAV will name.
            self._leave_to_pyav(self._piece, str(exc))
            return self._verifier.image(frame)
        self._verifier.check(frame, image, has_problem=self._piece.reader.has_problem)
        return image

    def _take(self, reader: DecordReader, frame: int) -> UInt8Array:
        """The frame by decord, which also returns all frames before it."""
        while True:
            number, image = reader.position, reader.take()
            previous = self._last[1] if self._last is not None and self._last[0] == number - 1 else None
            self._verifier.note(image, previous)
            self._last = number, image
            if number == frame:
                return image

    def _leads_to(self, frame: int) -> bool:
        """Whether the current piece includes a frame, and no piece that begins later is faster."""
        piece = self._piece
        if piece.reader is None:
            return piece.start <= frame < piece.end
        start = self._pieces.start_of(frame)
        is_far = start is not None and start >= piece.reader.position + MIN_JUMP_FRAMES
        return piece.reader.position <= frame < piece.end and not is_far

    def _new_piece(self, frame: int, last_wanted: int) -> _Piece:
        """The piece for a frame: as long as possible in a pass through the clip, otherwise up to last_wanted."""
        # The old piece must be gone before there is a new one: together they could exceed the buffer.
        self._piece = _Piece(0, 0)
        is_backwards = 0 < self._read_from - last_wanted <= MIN_JUMP_FRAMES
        is_pass = not is_backwards and (frame == self.index[0] or 0 <= frame - self._position < MIN_JUMP_FRAMES)
        start = self._pieces.start_of(frame)
        if is_pass and self._fits_buffer and frame < MIN_JUMP_FRAMES:
            start, end = 0, self._probe.num_frames
        elif start is None:
            return self._leave_to_pyav(_Piece(0, self._pieces.end_of_group(frame)), "")
        elif is_pass:
            end = self._end_of_pass(start)
        else:
            end = self._pieces.end_after(start, last_wanted, self._max_frames)
            if self._pieces.end_of_group(frame) - start > MAX_GROUP_AT_RANDOM:
                return self._leave_to_pyav(_Piece(start, self._pieces.end_of_group(frame)), "")
        try:
            return _Piece(start, end, self._open(start, end))
        except (ReaderError, Uncuttable) as exc:
            return self._leave_to_pyav(_Piece(start, end), str(exc))

    def _leave_to_pyav(self, piece: _Piece, reason: str) -> _Piece:
        """Let PyAV read a piece: its images are the same."""
        if reason:
            _log.warning("%s: frames %d to %d are read by pyav: %s", self._path, piece.start, piece.end - 1, reason)
        self._piece, self._last = _Piece(piece.start, piece.end), None
        return self._piece

    def _end_of_pass(self, start: int) -> int:
        if start == 0 and self._fits_buffer:
            return self._probe.num_frames
        return self._pieces.end_after(start, self._probe.num_frames - 1, self._max_frames)

    def _open(self, start: int, end: int) -> DecordReader:
        is_file = start == 0 and end == self._probe.num_frames
        return DecordReader(self._path if is_file else self._pieces.cut(start, end), self._probe, start, end)


def _refuse_unverifiable(probe: VideoProbe) -> None:
    """Raise Unverified for files of which decord would return other frames or images than PyAV."""
    first = probe.first_frame
    if probe.header_frames not in (0, probe.num_frames):
        raise Unverified(f"the header counts {probe.header_frames} frames, but {probe.num_frames} are shown")
    if probe.num_packets != probe.num_frames:
        raise Unverified(f"{probe.num_packets - probe.num_frames} of its {probe.num_packets} packets are not shown")
    if probe.num_streams > 1:
        raise Unverified(f"it has {probe.num_streams} video streams, of which decord chooses one by itself")
    if first.bits > 8:
        raise Unverified(f"its colours have {first.bits} bits, decord is verified for 8")
    if probe.width % 2 or probe.height % 2:
        raise Unverified(f"its size {probe.width}x{probe.height} px is odd")
    if first.orientation.is_mirrored:
        raise Unverified("its metadata mirror the frames")


def _end_of_run(index: Int64Array) -> int:
    """The last of the frames that follow each other closely."""
    gaps = np.flatnonzero(np.diff(index) >= MIN_JUMP_FRAMES)
    return int(index[gaps[0] if len(gaps) else -1])
