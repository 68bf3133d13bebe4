"""Folders with one image a frame, read by OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import DecodeError
from aot.images.frames import image_files
from aot.types import Int64Array, UInt8Array

# DAVIS, and so most datasets kept as frame folders.
DEFAULT_FPS = 24.0

# How JPEG and PNG files begin and end; some writers pad the end.
WHOLE = ((b"\xff\xd8", b"\xff\xd9"), (b"\x89PNG", b"IEND"))
TRAILER_BYTES = 4096


class FrameFolder(FrameSource):
    """The images of a folder in the order of their numbers; frame i is shown at i / fps.

    Args:
        folder: one image a frame, all of one size; other files are left alone.
        fps: frames per second; None: 24, the rate of DAVIS.
    Raises:
        DecodeError: the folder holds no image, or an image cannot be read or has another size than the first.
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
                    f"{self.width}x{self.height} px as in {self._files[0].name}; all frames of a clip have one size"
                )
            out[row] = image
        return out

    def close(self) -> None:
        pass


def first_frame(folder: Path) -> UInt8Array:
    """The first frame of a folder, (H, W, 3) RGB.

    Raises:
        DecodeError: the folder holds no image, or it cannot be read.
    """
    return _read_image(image_files(folder)[0])


def _read_image(file: Path) -> UInt8Array:
    try:
        content = file.read_bytes()
    except OSError as exc:
        raise DecodeError(f"{file}: cannot be read: {exc.strerror}") from exc
    image = None
    if content and _is_whole(content):
        image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise DecodeError(
            f"{file} ({len(content)} bytes): cannot be decoded as an image; expected a whole file: copy it again"
        )
    return np.asarray(image, dtype=np.uint8)


def _is_whole(content: bytes) -> bool:
    # libjpeg and libpng paint what is missing at the end grey or black and report nothing that OpenCV hands on.
    for begin, end in WHOLE:
        if content.startswith(begin):
            return end in content[-TRAILER_BYTES:]
    return True
