"""Folders with one image per frame, read by OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from aot.images.frames import image_files
from aot.images.whole import is_complete, is_too_dark, largest_deep_value, what_else_it_is
from aot.system.os_errors import os_problem
from aot.types import Int64Array, UInt8Array

# Frame rate of DAVIS, which most datasets of frame folders follow.
DEFAULT_FPS = 24.0

# Frames, evenly spread, of which at least one must use 16 bits if the first has more than 8: a single one may be dark.
_NUM_CHECKED = 8


class FrameFolder(FrameSource):
    """The images of a folder, ordered by the numbers in their names; the presentation time of frame i is i / fps.

    Args:
        folder: one image per frame, all of the same size; other files are ignored.
        fps: frames per second; None: 24, the rate of DAVIS.
        pattern: of the names of the frames, see `image_files`; None: all images are frames.
    Raises:
        DecodeError: the folder contains no image or images of several patterns, or an image cannot be read, is not a
            single image, or differs in size from the first; the images have more than 8 bits, but do not use 16.
    """

    def __init__(self, folder: Path, fps: float | None = None, pattern: str | None = None) -> None:
        self._files = _frame_files(folder, pattern)
        fps = DEFAULT_FPS if fps is None else fps
        height, width = _read_image(self._files[0]).shape[:2]
        _refuse_unused_bits(self._files)
        index = np.arange(len(self._files), dtype=np.int64)
        super().__init__(
            index=index,
            time=index / fps,
            width=width,
            height=height,
            fps=fps,
            num_source_frames=len(index),
            decoder="opencv",
            decoder_version=cv2.__version__,
        )

    def _read(self, index: Int64Array) -> UInt8Array:
        out = np.empty((len(index), self.height, self.width, 3), dtype=np.uint8)
        for row, frame in enumerate(index.tolist()):
            image = _read_image(self._files[frame])
            if image.shape != out.shape[1:]:
                raise DecodeError(
                    f"{self._files[frame]}: got {image.shape[1]}x{image.shape[0]} px, expected "
                    f"{self.width}x{self.height} px as in {self._files[0].name}, for all frames of a clip"
                )
            out[row] = image
        return out

    def _release(self) -> None:
        pass


def first_frame(folder: Path, pattern: str | None = None) -> UInt8Array:
    """The first frame of a folder, (H, W, 3) RGB.

    Raises:
        DecodeError: as `FrameFolder`.
    """
    return _read_image(_frame_files(folder, pattern)[0])


def refuse_stack(file: Path) -> None:
    """Raise if an image file contains several pages, of which FFmpeg would read only the first.

    Raises:
        DecodeError: it does.
    """
    if found := what_else_it_is(_read_content(file)):
        raise DecodeError(
            f"{file}: contains {found}; expected a video file, or a folder with one image per frame: write every page "
            f"to a separate file"
        )


def _frame_files(folder: Path, pattern: str | None) -> list[Path]:
    try:
        return image_files(folder, pattern)
    except OSError as exc:
        raise DecodeError(f"{folder} cannot be read: {os_problem(exc)}") from exc


def _read_content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise DecodeError(f"{file} cannot be read: {os_problem(exc)}") from exc


def _read_image(file: Path) -> UInt8Array:
    content = _read_content(file)
    if found := what_else_it_is(content):
        raise DecodeError(f"{file}: contains {found}; expected one image per file: write each to a separate file")
    image = None
    if content and is_complete(content):
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DecodeError(
            f"{file} ({len(content)} bytes): cannot be decoded as an image; expected a complete file "
            f"of 8 or 16 bits per channel: copy it again, or convert it"
        )
    return np.asarray(image, dtype=np.uint8)


def _refuse_unused_bits(files: Sequence[Path]) -> None:
    """Raise if images with more than 8 bits are 10, 12 or 14-bit data: they would be shown nearly black.

    Raises:
        DecodeError: of the images that were read, none uses 16 bits.
    """
    largest = 0.0
    for number in sorted({round(row) for row in np.linspace(0, len(files) - 1, _NUM_CHECKED)}):
        value = largest_deep_value(_read_content(files[number]))
        if value is None or not is_too_dark(value):
            return
        largest = max(largest, value)
    raise DecodeError(
        f"{files[0]}: has more than 8 bits per channel, and the largest value of the frames is {largest:g}; expected "
        f"16-bit images that use values up to 65535: convert the frames to 8 bits"
    )
