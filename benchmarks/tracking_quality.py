"""Accuracy and speed of `tracker=lucas_kanade` on the BADJA joints, compared with plain Lucas-Kanade and no motion.

    python benchmarks/tracking_quality.py --data FOLDER

FOLDER contains tracks/badja_<clip>/tracks.npz and davis_clips/<clip>/{clip.mp4, Annotations/00000.png}. The query of a
joint is on the first frame on which it is annotated and visible; on every later such frame it counts as correct if the
track is within 0.2 · sqrt(mask area) of it (PCK@0.2).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from aot.decoding import open_source
from aot.decoding.base import FrameSource
from aot.query_points.adaptive import AdaptiveSampler
from aot.tracking.lucas_kanade import LucasKanadeTracker
from aot.types import BoolArray, Clip, Float32Array, QueryPoints

CLIPS = ("bear", "camel", "horsejump-high")
TOLERANCE = 0.2
PLAIN_WINDOW, PLAIN_LEVELS = (21, 21), 3


@dataclass(frozen=True)
class Joints:
    """The annotation of one clip."""

    queries: QueryPoints
    """(N, 3), one per joint that is visible on any frame."""
    xy: Float32Array
    """(T, N, 2) px."""
    scored: BoolArray
    """(T, N): visible, annotated, and not the query itself."""
    tolerance: Float32Array
    """(T,) px."""

    def pck(self, xy: Float32Array) -> float:
        """Fraction of the scored positions that are within the tolerance."""
        error = np.linalg.norm(xy[:, : self.xy.shape[1]] - self.xy, axis=2)
        return float((error <= self.tolerance[:, None])[self.scored].mean())


def read_joints(path: Path) -> Joints:
    """Read the annotation of one clip."""
    with np.load(path) as data:
        visible = (data["visible"] & data["annotated"]).T
        xy, area = data["points_xy"].transpose(1, 0, 2), data["mask_area"]
    is_used = visible.any(axis=0)
    visible, xy = visible[:, is_used], xy[:, is_used]
    own = np.arange(visible.shape[1])
    first = visible.argmax(axis=0)
    scored = visible.copy()
    scored[first, own] = False
    txy = np.column_stack([first, xy[first, own]]).astype(np.float32)
    return Joints(as_queries(txy), xy.astype(np.float32), scored, (TOLERANCE * np.sqrt(area)).astype(np.float32))


def as_queries(txy: Float32Array) -> QueryPoints:
    """Points of one object."""
    return QueryPoints(txy=txy, object_id=np.ones(len(txy), dtype=np.int32))


def with_sampled(joints: QueryPoints, mask_path: Path) -> QueryPoints:
    """The joints, followed by points sampled inside the object on frame 0, as in a run on the object."""
    mask = np.asarray(cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)) > 0
    xy = AdaptiveSampler().sample(mask)
    return as_queries(np.concatenate([joints.txy, np.column_stack([np.zeros(len(xy)), xy]).astype(np.float32)]))


def no_motion(frames: FrameSource, queries: QueryPoints) -> Float32Array:
    """Keep every point at its query."""
    return np.tile(queries.txy[:, 1:], (len(frames.index), 1, 1))


def plain_lucas_kanade(frames: FrameSource, queries: QueryPoints) -> Float32Array:
    """OpenCV's tracker from frame to frame, only forwards (nothing is scored before the query of a joint)."""
    start = queries.txy[:, 0]
    xy = no_motion(frames, queries)
    previous = None
    for block in frames.blocks():
        for frame, rgb in zip(block.index, block.rgb):
            grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
            moving = start < frame
            if previous is not None and moving.any():
                old = xy[frame - 1, moving]
                xy[frame, moving] = cv2.calcOpticalFlowPyrLK(
                    previous, grey, old, np.empty_like(old), winSize=PLAIN_WINDOW, maxLevel=PLAIN_LEVELS
                )[0]
            previous = grey
    return xy


def ours(frames: FrameSource, queries: QueryPoints) -> Float32Array:
    """The tracker with its default options."""
    return LucasKanadeTracker().track(frames, queries).xy


def measure(
    video: Path, joints: Joints, queries: QueryPoints, track: Callable[[FrameSource, QueryPoints], Float32Array]
) -> tuple[float, float]:
    """PCK, and wall ms per frame without decoding."""
    with open_source(Clip(clip_id=video.parent.name, source=video)) as frames:
        started = time.perf_counter()
        xy = track(frames, queries)
        seconds = time.perf_counter() - started - frames.wait_seconds
        return joints.pck(xy), 1000 * seconds / len(frames.index)


def main() -> None:
    """Print one line per clip and method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tracks/ and davis_clips/")
    data = parser.parse_args().data
    print(f"{'clip':16}{'method':30}{'points':>7}{'PCK@0.2':>9}{'ms/frame':>10}")
    for name in CLIPS:
        folder = data / "davis_clips" / name
        joints = read_joints(data / "tracks" / f"badja_{name}" / "tracks.npz")
        many = with_sampled(joints.queries, folder / "Annotations" / "00000.png")
        for label, queries, track in (
            ("no motion", joints.queries, no_motion),
            ("plain Lucas-Kanade", joints.queries, plain_lucas_kanade),
            ("ours, only joints", joints.queries, ours),
            ("ours, with sampled points", many, ours),
        ):
            pck, milliseconds = measure(folder / "clip.mp4", joints, queries, track)
            print(f"{name:16}{label:30}{len(queries):7}{pck:9.3f}{milliseconds:10.1f}", flush=True)


if __name__ == "__main__":
    main()
