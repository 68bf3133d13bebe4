"""Time to score DAVIS-sized sequences with two objects each, masks and tracks; the data are generated.

    python benchmarks/evaluation.py --folder /tmp/evaluation --sequences 30

DAVIS-2017's validation set has 30 sequences of 67 frames of 854x480 and 2 objects on average.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from aot.datasets.annotations import AnnotatedTruth
from aot.datasets.videos import Videos
from aot.evaluate.clip import ClipScore
from aot.evaluate.run import ScoreTask, evaluate_clips
from aot.evaluate.tables import score_rows, score_table
from aot.system.cli import output_console
from aot.types import BoolArray
from tests.results import write_result

HEIGHT, WIDTH = 480, 854
NUM_FRAMES = 67
RADII = (110, 60)


def masks_of(sequence: int, shift_px: int = 0) -> BoolArray:
    """(T, 2, H, W): two moving disks with uneven edges, like those of real objects."""
    rng = np.random.default_rng(sequence)
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    angle = np.linspace(0, 2 * np.pi, 64)
    masks = np.zeros((NUM_FRAMES, len(RADII), HEIGHT, WIDTH), dtype=np.bool_)
    for k, radius in enumerate(RADII):
        edge = radius * (1 + 0.1 * np.cumsum(rng.normal(0, 0.4, 64)) / 4)
        for t in range(NUM_FRAMES):
            dy, dx = y - 160 - 2 * t, x - 200 - 300 * k - 2 * t - shift_px
            masks[t, k] = np.hypot(dy, dx) <= np.interp(np.arctan2(dy, dx) % (2 * np.pi), angle, edge)
    masks[:, 0] &= ~masks[:, 1]
    return masks


def write_sequence(folder: Path, sequence: int) -> None:
    """Write ground truth as palette PNGs and tracks, and a result that is shifted by 3 px."""
    truth = folder / "truth" / f"{sequence:02d}"
    truth.mkdir(parents=True)
    for t, (first, second) in enumerate(masks_of(sequence)):
        Image.fromarray(first.astype(np.uint8) + 2 * second.astype(np.uint8)).save(truth / f"{t:05d}.png")
    start = np.random.default_rng(sequence).uniform(100, 400, (200, 2))
    course = start[:, None] + np.arange(NUM_FRAMES)[None, :, None] * 2.0
    np.savez(truth / "tracks.npz", points_xy=course.astype(np.float32), visible=np.ones(course.shape[:2], np.bool_))
    queries = [(0, x, y, 1 + (x > 250)) for x, y in start.astype(np.float32).tolist()]
    write_result(
        folder / "clips" / f"{sequence:02d}.h5",
        masks=masks_of(sequence, shift_px=3),
        queries=queries,
        xy=course.swapaxes(0, 1) + 3,
    )


class Generated(Videos):
    """The ground truth of `write_sequence`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ground_truth(self, clip_id: str) -> AnnotatedTruth:
        truth = self._folder / "truth" / clip_id
        return AnnotatedTruth(truth, truth / "tracks.npz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="created if missing, and kept")
    parser.add_argument("--sequences", type=int, default=30)
    parser.add_argument("--workers", type=int, help="number of processes; default: one per core")
    options = parser.parse_args()
    for sequence in range(options.sequences):
        if not (options.folder / "clips" / f"{sequence:02d}.h5").exists():
            write_sequence(options.folder, sequence)
    names = [f"{sequence:02d}" for sequence in range(options.sequences)]
    build = partial(Generated, options.folder)
    tasks = [ScoreTask(name, options.folder / "clips" / f"{name}.h5", build, None) for name in names]
    started = time.perf_counter()
    scores = {
        clip_id: score for clip_id, score in evaluate_clips(tasks, options.workers) if isinstance(score, ClipScore)
    }
    seconds = time.perf_counter() - started
    output_console().print(score_table(score_rows(scores)))
    print(f"{len(scores)} sequences of {NUM_FRAMES} frames and {len(RADII)} objects: {seconds:.1f} s")


if __name__ == "__main__":
    main()
