"""Small synthetic videos."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from aot.types import UInt8Array


def moving_square(num_frames: int = 12, width: int = 96, height: int = 64, seed: int = 0) -> UInt8Array:
    """(T, H, W, 3): a bright textured 20 px square over a dark texture, moving right by 2 px per frame.

    Its upper left corner is at (8 + 2 t, 20); after 30 frames it moves back.
    """
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 70, (height, width, 3), dtype=np.uint8)
    square = rng.integers(150, 255, (20, 20, 3), dtype=np.uint8)
    rgb = np.repeat(background[None], num_frames, axis=0)
    for t in range(num_frames):
        x = 8 + 2 * min(t % 60, 60 - t % 60)
        rgb[t, 20:40, x : x + 20] = square
    return rgb


def write_video(path: Path, rgb: UInt8Array, fps: int = 10, times_ms: Sequence[int] | None = None) -> Path:
    """Encode (T, H, W, 3) uint8 RGB frames as H.264, almost losslessly; `times_ms` are instead of a constant rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "4", "preset": "ultrafast"})
        stream.height, stream.width = rgb.shape[1:3]
        stream.pix_fmt = "yuv420p"
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(rgb):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
