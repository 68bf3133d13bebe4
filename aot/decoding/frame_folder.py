"""Folders with one image per frame, read by OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from aot.images.frames import image_files
from aot.system.os_errors import os_problem
from aot.types import Int64Array, UInt8Array

# Frame rate of DAVIS, which most datasets of frame folders follow.
DEFAULT_FPS = 24.0

# First and last bytes of complete JPEG and PNG files; some writers add padding after the end.
_FIRST_AND_LAST_BYTES = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"))
_MAX_PADDING_BYTES = 4096


class FrameFolder(FrameSource):
    """The images of a folder, ordered by the numbers in their names; the presentation time of frame i is i / fps.

    Args:
        folder: one image per frame, all of the same size; other files are ignored.
        fps: frames per second; None: 24, the rate of DAVIS.
    Raises:
        DecodeError: the folder contains no image, or an image cannot be read or differs in size from the first.
    """

    def __init__(self, folder: Path, fps: float | None = None) -> None:
        self._files = image_files(folder)
        fps = DEFAULT_FPS if fps is None else fps
        height, width = _read_image(self._files[0]).shape[:2]
        index = np.arange(len(self._files), dtype=np.int64)
        super().__init__(
            index=index, time=index / fps, width=width, height=height, fps=fps, num_source_frames=len(index)
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

    def close(self) -> None:
        pass


def first_frame(folder: Path) -> UInt8Array:
    """The first frame of a folder, (H, W, 3) RGB.

    Raises:
        DecodeError: the folder contains no image, or its first image cannot be read.
    """
    return _read_image(image_files(folder)[0])


def _read_image(file: Path) -> UInt8Array:
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise DecodeError(f"{file} cannot be read: {os_problem(exc)}") from exc
    image = None
    if content and _is_complete(content):
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DecodeError(
            f"{file} ({len(content)} bytes): cannot be decoded as an image; expected a complete file: copy it again"
        )
    return np.asarray(image, dtype=np.uint8)


def _is_complete(content: bytes) -> bool:
    # libjpeg and libpng fill missing pixels at the end with grey or black, and OpenCV does not pass on their warnings.
    for first, last in _FIRST_AND_LAST_BYTES:
        if content.startswith(first):
            return last in content[-_MAX_PADDING_BYTES:]
    return True
