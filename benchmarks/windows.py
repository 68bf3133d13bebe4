"""Windows per second of `aot.windows`, in this process and from PyTorch's loader with one and two workers.

    python -m benchmarks.windows --folder /tmp/windows --clips 300

Clips have 60 frames and 500 points, and windows 400 points and 32 next positions. The loader shuffles; its workers have
started and have read the files before the time counts. A cache smaller than the run (--cache-mb) shows what a run costs
that is larger than the cache.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

import aot
from aot.runs import windows as module
from aot.runs.windows import WindowDataset
from tests.results import write_result

NUM_FRAMES, NUM_POINTS = 60, 500
BATCH = 32


def write_run(folder: Path, num_clips: int) -> None:
    """Clips whose points walk at random, so that positions compress as badly as real ones; masks are small."""
    masks = np.zeros((NUM_FRAMES, 1, 48, 64), dtype=np.bool_)
    for number in range(num_clips):
        rng = np.random.default_rng(number)
        start = rng.uniform(0, 400, (NUM_POINTS, 2))
        xy = start + rng.normal(0, 2, (NUM_FRAMES, NUM_POINTS, 2)).cumsum(axis=0)
        path = folder / "clips" / f"{number:05d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        queries = [(0, x, y, 1) for x, y in start]
        write_result(path, masks=masks, queries=queries, xy=xy, visible=rng.random(xy.shape[:2]) > 0.1)
    (folder / "run.json").write_text(json.dumps({}))


def rate_in_process(found: WindowDataset, order: list[int]) -> float:
    for position in order[:200]:
        found[position]
    started = time.perf_counter()
    for position in order:
        found[position]
    return len(order) / (time.perf_counter() - started)


def rate_of_loader(loader: DataLoader[Any], num_windows: int) -> float:
    for _ in loader:  # the workers start and read the files
        pass
    started, count = time.perf_counter(), 0
    while count < num_windows:
        for batch in loader:
            count += len(batch["frame"])
    return count / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="created if missing, and kept")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--windows", type=int, default=20_000, help="to time, at least")
    parser.add_argument("--cache-mb", type=float, help="memory for the files of a process; default: that of aot")
    options = parser.parse_args()
    if not (options.folder / "run.json").exists():
        write_run(options.folder, options.clips)
    if options.cache_mb is not None:
        module._CACHE_BYTES = int(options.cache_mb * 1e6)
    found = aot.windows(options.folder)
    order = np.random.default_rng(0).permutation(len(found))[: options.windows].tolist()
    print(f"{len(found)} windows of {options.clips} clips")
    print(f"in this process: {rate_in_process(found, order):.0f} windows/s")
    plain = partial(DataLoader, found, batch_size=BATCH, shuffle=True, persistent_workers=True)
    loaders = {
        "loader()": lambda workers: found.loader(BATCH, workers=workers),
        "DataLoader(shuffle=True)": lambda workers: plain(num_workers=workers),
    }
    for name, make in loaders.items():
        one, two = (rate_of_loader(make(workers), options.windows) for workers in (1, 2))
        print(f"{name}, 1 worker: {one:.0f}; 2 workers: {two:.0f} windows/s, {two / one:.2f} times", flush=True)


if __name__ == "__main__":
    main()
