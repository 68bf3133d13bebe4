"""CPU time to draw an overlay: ms per frame, on one core, at 480p, 720p and 1080p.

    python -m benchmarks.overlay [--frames 100] [--points 200] [KEY=VALUE of overlay.* …]

A video with two objects and their points is encoded, and drawn like a finished clip: decoded, drawn and encoded again.
Run it on an idle machine. The columns are the sum, only the decoding, and only the encoding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from aot.decoding import open_source
from aot.drawing.overlay import write_overlay
from aot.drawing.style import OverlayStyle
from aot.drawing.video_writer import VideoWriter
from aot.types import BoolArray, Clip, QueryPoints, Tracks, UInt8Array
from tests.synthetic import write_video

SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
SPEED = np.array([2.0, 0.5])
"""Of both objects, px per frame at 480p."""
STARTS = ((250, 200), (500, 300))
"""Centres of the objects on the first frame, px at 480p."""
RADIUS = 90
"""Of the objects, px at 480p."""


def images(num_frames: int, width: int, height: int) -> UInt8Array:
    """(T, H, W, 3): a smooth texture that moves left."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 1, (height, width + 4 * num_frames, 3)), (0, 0), 4) * 300 + 120
    texture = texture.clip(0, 255).astype(np.uint8)
    return np.stack([texture[:, 4 * t : 4 * t + width] for t in range(num_frames)])


def points(num_frames: int, num_points: int, scale: float) -> tuple[Tracks, QueryPoints]:
    """Points spread over both objects that move with them; every fifth position is hidden."""
    rng = np.random.default_rng(0)
    half = num_points // 2
    start = scale * np.concatenate([rng.normal(centre, 0.4 * RADIUS, (half, 2)) for centre in STARTS])
    xy = (start + scale * np.arange(num_frames)[:, None, None] * SPEED).astype(np.float32)
    visible = rng.random(xy.shape[:2]) > 0.2
    tracks = Tracks(xy, visible, visible.astype(np.float32), visible.astype(np.float32))
    txy = np.column_stack([np.zeros(len(start)), start]).astype(np.float32)
    return tracks, QueryPoints(txy, np.repeat([1, 2], half).astype(np.int32))


def mask_reader(width: int, height: int, scale: float) -> Callable[[int], BoolArray]:
    rows, columns = np.mgrid[:height, :width]

    def masks(frame: int) -> BoolArray:
        """(2, H, W) discs."""
        centres = scale * (np.array(STARTS) + frame * SPEED)
        return np.stack([(columns - x) ** 2 + (rows - y) ** 2 < (scale * RADIUS) ** 2 for x, y in centres])

    return masks


def measure(folder: Path, name: str, num_frames: int, num_points: int, style: OverlayStyle) -> str:
    """One row of the table."""
    width, height = SIZES[name]
    scale = height / 480
    video = write_video(folder / f"{name}.mp4", images(num_frames, width, height))
    tracks, queries = points(num_frames, num_points, scale)
    of_frame = mask_reader(width, height, scale)
    masks = [of_frame(frame) for frame in range(num_frames)]
    encode, encoding_seconds = VideoWriter.write, 0.0

    def timed(writer: VideoWriter, image: UInt8Array) -> None:
        nonlocal encoding_seconds
        started_at = time.process_time()
        encode(writer, image)
        encoding_seconds += time.process_time() - started_at

    with open_source(Clip(name, video)) as source:
        started_at = time.process_time()
        for _ in source.blocks():
            pass
        decoding_seconds = time.process_time() - started_at
    out = folder / f"{name}-overlay.mp4"
    VideoWriter.write = timed  # type: ignore[method-assign]
    try:
        started_at = time.process_time()
        with open_source(Clip(name, video)) as source:
            write_overlay(
                out, source, tracks=tracks, queries=queries, masks=masks.__getitem__, object_ids=(1, 2), style=style
            )
        seconds = time.process_time() - started_at
    finally:
        VideoWriter.write = encode  # type: ignore[method-assign]
    total, decoding, encoding = (1000 * value / num_frames for value in (seconds, decoding_seconds, encoding_seconds))
    return f"| {name} | {total:.1f} | {decoding:.1f} | {encoding:.1f} | {out.stat().st_size / num_frames / 1000:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("options", nargs="*", metavar="KEY=VALUE", help="of overlay.*")
    arguments = parser.parse_args()
    values: dict[str, Any] = dict(option.split("=", 1) for option in arguments.options)
    style = OverlayStyle.model_validate(values)
    cv2.setNumThreads(1)
    print("| size | ms per frame | decoding | encoding | KB per frame |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in SIZES:
            print(measure(Path(folder), name, arguments.frames, arguments.points, style))


if __name__ == "__main__":
    main()
