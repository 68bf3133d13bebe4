"""Small videos whose frames encode their own number, so that a wrong frame is noticed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from aot.types import Int64Array, UInt8Array

NUM_BITS = 8
BITS = 2 ** np.arange(NUM_BITS)

FPS = 25

# B-frames, and a key frame every 12 frames; no frame refers across a key frame.
CLOSED_GROUPS = {"x264-params": "keyint=12:min-keyint=12:bframes=3:scenecut=0"}


def coded_frame(number: int, width: int = 64, height: int = 48) -> UInt8Array:
    """(H, W, 3): eight columns, white where the bit of the number is set; the lowest bit is on the left."""
    is_white = (number >> _bit_of_column(width)) & 1
    return np.broadcast_to((is_white * 255).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def numbers_in(rgb: UInt8Array) -> Int64Array:
    """(B,) the numbers that the frames (B, H, W, 3) encode."""
    columns, bits = rgb.mean(axis=(1, 3)), _bit_of_column(rgb.shape[2])
    means = np.stack([columns[:, bits == bit].mean(axis=1) for bit in range(NUM_BITS)], axis=1)
    return ((means > 127) @ BITS).astype(np.int64)


def _bit_of_column(width: int) -> Int64Array:
    return (np.arange(width) * NUM_BITS // width).astype(np.int64)


def one_thread_of(codec: str) -> dict[str, str]:
    """The option that keeps the encoder of VP8 from waiting busily for its other threads: a fifth of the CPU time."""
    return {"threads": "1"} if codec == "libvpx" else {}


def write_coded_video(
    path: Path,
    numbers: Iterable[int] = range(40),
    times_ms: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 48),
    container_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    texture: int = 0,
    rate: int = FPS,
) -> Path:
    """Encode one frame per number, with presentation times `times_ms` or every 40 ms; `rate` is that of the header.

    Args:
        texture: largest value of noise that moves over the dark columns, so that frames take kilobytes.
    """
    numbers = list(numbers)
    noise = np.random.default_rng(0).integers(0, texture + 1, (size[1], size[0], 3), dtype=np.uint8)
    # MPEG-2 does not support a time base of 1 ms.
    time_base = Fraction(1, FPS if times_ms is None else 1000)
    times = range(len(numbers)) if times_ms is None else times_ms
    with av.open(str(path.absolute()), "w", options=container_options or {}) as container:
        options = CLOSED_GROUPS if options is None else options
        stream = container.add_stream(codec, rate=rate, options=options | one_thread_of(codec))
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = time_base
        for number, time in zip(numbers, times):
            image = np.maximum(coded_frame(number, *size), np.roll(noise, 3 * number, axis=1))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
