"""Decide which of decord's frames are compared with PyAV's, and compare them.

compared always         repeats of the frame before, up to ten; every frame after a problem that FFmpeg reports; the
                        first frame of more than one colour, which shows how colours are converted
compared where cheap    any frame that PyAV reaches by decoding at most a tenth of the frames since the last comparison
                        (in practice a key frame now and then): a lost frame would shift all later ones
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from aot.types import UInt8Array

# More repeats are static footage, or animation at a lower rate, which would otherwise be decoded twice. Counting starts
# again after as many frames without a repeat; not after one, because a key frame in static footage differs a little.
MAX_COMPARED_REPEATS = 10

# PyAV may decode one frame for this number of frames by decord, where nothing is suspicious.
SPOT_CHECK_FRAMES = 10


class Verifier:
    """Compares frames with those of PyAV.

    Args:
        path: the video file.
        first: (H, W, 3) its first frame by PyAV; None: not known.
    """

    def __init__(self, path: Path, first: UInt8Array | None = None) -> None:
        self._path = path
        self._first = first
        self._opened: VideoFile | None = None
        self._num_repeats = 0
        self._is_repeat = False
        self._num_since_repeat = 0
        self._num_unchecked = 0
        self._last_cost = 1
        # An image of one colour is the same whatever the rotation, and often whatever the colour matrix.
        self._is_conversion_checked = False

    def close(self) -> None:
        """Close the file; images must not be read afterwards."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _judge(self) -> VideoFile:
        """Opened for the first frame that is compared, apart from that of the file: short clips often need no other.

        Raises:
            DecodeError: PyAV cannot open the file.
        """
        if self._opened is None:
            self._opened = VideoFile(self._path)
        return self._opened

    def image(self, frame: int) -> UInt8Array:
        """A frame by PyAV, (H, W, 3) RGB.

        Raises:
            DecodeError: it cannot be decoded.
        """
        image: UInt8Array = self._judge.read([frame]).rgb[0]
        return image

    def is_right(self, frame: int, image: UInt8Array) -> bool:
        """Whether a frame by decord equals PyAV's.

        Raises:
            DecodeError: PyAV cannot decode it.
        """
        if frame == 0 and self._first is not None:
            expected, cost = self._first, 1
        else:
            before = self._judge.num_taken
            expected = self.image(frame)
            cost = self._judge.num_taken - before
        self._num_unchecked, self._last_cost = 0, cost
        self._is_conversion_checked |= not _has_one_colour(image)
        return np.array_equal(image, expected)

    def note(self, image: UInt8Array, previous: UInt8Array | None) -> None:
        """Count a frame that decord has returned.

        Args:
            image: (H, W, 3).
            previous: the frame before it; None: unknown.
        """
        self._num_unchecked += 1
        self._is_repeat = previous is not None and _are_equal(image, previous)
        self._num_since_repeat = 0 if self._is_repeat else self._num_since_repeat + 1
        if self._is_repeat:
            self._num_repeats += 1
        elif self._num_since_repeat >= MAX_COMPARED_REPEATS:
            self._num_repeats = 0

    def check(self, frame: int, image: UInt8Array, *, has_problem: bool) -> None:
        """Compare a frame that was noted last, if there is a reason.

        Args:
            frame: its number.
            image: (H, W, 3) by decord.
            has_problem: whether FFmpeg has reported a problem in the file.
        Raises:
            DecodeError: PyAV cannot decode the frame, or its image is another one.
        """
        is_suspicious = (
            has_problem
            or (self._is_repeat and self._num_repeats <= MAX_COMPARED_REPEATS)
            or not (self._is_conversion_checked or _has_one_colour(image))
        )
        if (is_suspicious or self._is_cheap(frame)) and not self.is_right(frame, image):
            raise DecodeError(
                f"{self._path}: frame {frame} ({self._judge.time[frame]:.3f} s): decord returns another image than "
                f"PyAV; use decoder=pyav"
            )

    def _is_cheap(self, frame: int) -> bool:
        if self._num_unchecked < SPOT_CHECK_FRAMES:
            return False
        # Some containers seek badly: then the last comparison has cost more than was expected.
        cost = max(self._judge.frames_to_decode(frame), self._last_cost)
        return cost * SPOT_CHECK_FRAMES <= self._num_unchecked


def _are_equal(one: UInt8Array, other: UInt8Array) -> bool:
    """Whether two images are equal; most that differ do so in the few pixels that are compared first."""
    return np.array_equal(one[::16, ::16], other[::16, ::16]) and np.array_equal(one, other)


def _has_one_colour(image: UInt8Array) -> bool:
    return bool((image == image[0, 0]).all())
