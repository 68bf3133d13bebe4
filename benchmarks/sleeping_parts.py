"""A segmenter and a tracker that sleep as long as a GPU would compute; what they return was drawn beforehand.

`benchmarks.device_busy` copies this file beside its clips and imports it from there, so that commands of older versions
can use it too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class _SleepingPart:
    """Sleeps once per frame, and notes for how long it slept, without the delays of a busy processor."""

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)

    def _note(self, seconds: float) -> None:
        with (self._folder / f"slept-{os.getpid()}.txt").open("a") as file:
            file.write(f"{seconds}\n")


class SleepingSegmenter(_SleepingPart):
    """Reads every frame and returns the masks of `masks.npy`, (T, 1, H, W) bool.

    Args:
        folder: contains `masks.npy`.
        seconds_per_frame: of the pretended computation.
    """

    propagate = True

    def __init__(self, folder: Path, seconds_per_frame: float) -> None:
        super().__init__(folder)
        self._seconds = seconds_per_frame
        self._masks = np.load(self._folder / "masks.npy", mmap_mode="r")

    def segment(self, frames: Any, prompts: Sequence[Any], *, on_object_error: Any) -> Iterator[Any]:
        from aot.types import MaskBlock

        object_id = np.array([prompts[0].object_id], dtype=np.int32)
        score = np.ones((1, 1), dtype=np.float32)
        for block in frames.blocks():
            for frame in block.index:
                time.sleep(self._seconds)
                masks = np.array(self._masks[frame : frame + 1])
                yield MaskBlock(np.array([frame], dtype=np.int64), object_id, masks, score)
        self._note(self._seconds * len(frames.index))


class SleepingTracker(_SleepingPart):
    """Reads every frame and moves all points by the same distance per frame.

    Args:
        folder: where the time is noted.
        seconds_per_point: of the pretended computation, per point and frame.
        velocity: px per frame.
    """

    def __init__(self, folder: Path, seconds_per_point: float, velocity: tuple[float, float]) -> None:
        super().__init__(folder)
        self._seconds = seconds_per_point
        self._velocity = np.asarray(velocity, dtype=np.float32)

    def track(self, frames: Any, queries: Any, *, lean: bool = False) -> Any:
        from aot.types import Tracks

        seconds = self._seconds * len(queries)
        for block in frames.blocks():
            for _ in block.index:
                time.sleep(seconds)
        self._note(seconds * len(frames.index))
        elapsed = frames.index[:, None] - queries.txy[None, :, 0]
        xy = (queries.txy[None, :, 1:] + elapsed[..., None] * self._velocity).astype(np.float32)
        visible = np.ones(xy.shape[:2], dtype=np.bool_)
        return Tracks(xy, visible, visible.astype(np.float32), visible.astype(np.float32))

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return 0
