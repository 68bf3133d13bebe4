"""Frames of a video as other decoders show them: FFmpeg's command, and PyAV used plainly from the first frame on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from aot.types import UInt8Array

Judge = Callable[[Path, tuple[int, int]], UInt8Array]
"""Takes a video and its displayed width and height; returns the displayed frames, (T, H, W, 3) RGB."""


def by_pyav(path: Path, size: tuple[int, int]) -> UInt8Array:
    """Decode all frames in one thread without a seek."""
    with av.open(str(path)) as container:
        # The first stream with as many pixels as what is displayed; the tests write no other of this size before it.
        stream = next(one for one in container.streams.video if one.width * one.height == size[0] * size[1])
        stream.thread_type = "NONE"
        frames = [_displayed(frame) for frame in container.decode(stream)]
    assert frames[0].shape == (size[1], size[0], 3)
    return np.stack(frames)


def _displayed(frame: av.VideoFrame) -> UInt8Array:
    """Each pixel where the display matrix, rounded to whole numbers, puts it."""
    image = frame.to_ndarray(format="rgb24")
    side_data = frame.side_data.get("DISPLAYMATRIX")
    a, b, _, c, d, *_ = np.frombuffer(side_data or bytes(36), np.int32)
    matrix = np.rint(np.array([[a, c], [b, d]]) / 2**16).astype(int)
    if not matrix.any():
        return image
    y, x = np.indices(image.shape[:2])
    to_x, to_y = (row[0] * x + row[1] * y for row in matrix)
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    out = np.empty((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    out[to_y, to_x] = image
    return out


def by_ffmpeg(path: Path, size: tuple[int, int]) -> UInt8Array:
    """Decode all frames by the command `ffmpeg`, which also turns them."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg command: `make system` installs it (as root on Debian)")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    run = subprocess.run([*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True, check=True)
    return np.frombuffer(run.stdout, dtype=np.uint8).reshape(-1, size[1], size[0], 3)


JUDGES: dict[str, Judge] = {"PyAV": by_pyav, "ffmpeg": by_ffmpeg}
