"""Time to draw an overlay: ms per frame of 854x480 with 2 objects and 400 points, without encoding.

    python -m benchmarks.overlay [key=value of overlay.* ...]

A run is expected to reach 8 frames/s with overlays on 2 cores: 125 ms per frame for everything.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from aot.drawing.overlay import write_overlay
from aot.drawing.style import OverlayStyle
from aot.drawing.video_writer import VideoWriter
from aot.types import QueryPoints, Tracks
from tests.fakes import ArraySource

WIDTH, HEIGHT, FRAMES, POINTS = 854, 480, 100, 400


def scene() -> tuple[ArraySource, Tracks, QueryPoints, np.ndarray]:
    """Two discs that move with their points over a smooth texture."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (HEIGHT, WIDTH + 4 * FRAMES, 3)), (0, 0), 4) * 300 + 120
    rgb = np.stack([texture[:, 4 * t : 4 * t + WIDTH] for t in range(FRAMES)]).clip(0, 255).astype(np.uint8)
    start = np.concatenate([rng.normal((250, 200), 40, (POINTS // 2, 2)), rng.normal((500, 300), 40, (POINTS // 2, 2))])
    xy = (start + np.arange(FRAMES)[:, None, None] * np.array([2.0, 0.5])).astype(np.float32)
    visible = rng.random(xy.shape[:2]) > 0.2
    tracks = Tracks(xy, visible, visible.astype(np.float32), visible.astype(np.float32))
    queries = QueryPoints(
        np.column_stack([np.zeros(POINTS), start]).astype(np.float32), np.repeat([1, 2], POINTS // 2).astype(np.int32)
    )
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    centres = [np.array([250, 200]), np.array([500, 300])]
    masks = np.zeros((FRAMES, 2, HEIGHT, WIDTH), np.bool_)
    for t in range(FRAMES):
        for k, centre in enumerate(centres):
            x, y = centre + t * np.array([2.0, 0.5])
            masks[t, k] = (columns - x) ** 2 + (rows - y) ** 2 < 90**2
    return ArraySource(rgb), tracks, queries, masks


def main() -> None:
    style = OverlayStyle.model_validate(dict(argument.split("=", 1) for argument in sys.argv[1:]))
    frames, tracks, queries, masks = scene()
    with tempfile.TemporaryDirectory() as folder:
        encode = VideoWriter.write
        spent = {"encode": 0.0}

        def timed(video: VideoWriter, image: np.ndarray) -> None:
            started = time.process_time()
            encode(video, image)
            spent["encode"] += time.process_time() - started

        VideoWriter.write = timed  # type: ignore[method-assign]
        started = time.process_time()
        write_overlay(
            Path(folder) / "o.mp4",
            frames,
            tracks=tracks,
            queries=queries,
            masks=lambda row: masks[row],
            object_ids=(1, 2),
            style=style,
        )
        total = time.process_time() - started
        size = (Path(folder) / "o.mp4").stat().st_size
    draw = (total - spent["encode"]) / FRAMES * 1000
    print(
        f"CPU ms per frame: {draw:.1f} drawing, {spent['encode'] / FRAMES * 1000:.1f} encoding; "
        f"{size / FRAMES:.0f} bytes"
    )


if __name__ == "__main__":
    sys.exit(main())
