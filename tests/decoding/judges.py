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
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        frames = [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in container.decode(stream)
        ]
    assert frames[0].shape == (size[1], size[0], 3)
    return np.stack(frames)


def by_ffmpeg(path: Path, size: tuple[int, int]) -> UInt8Array:
    """Decode all frames by the command `ffmpeg`, which also turns them."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg command: `make system` installs it (as root on Debian)")
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", f"file:{path}", "-fps_mode", "passthrough"]
    run = subprocess.run([*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], capture_output=True, check=True)
    return np.frombuffer(run.stdout, dtype=np.uint8).reshape(-1, size[1], size[0], 3)


JUDGES: dict[str, Judge] = {"PyAV": by_pyav, "ffmpeg": by_ffmpeg}
