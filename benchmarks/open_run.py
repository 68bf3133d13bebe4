"""Time to open a run of many clips and to filter it, without and with an index.

python benchmarks/open_run.py --folder /tmp/many --clips 10000
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import h5py
import numpy as np

import aot
from tests.results import write_result


def write_run(folder: Path, num_clips: int) -> None:
    """Write clips whose self-checks differ; their arrays are small, because nothing reads them."""
    rng = np.random.default_rng(0)
    template = folder / "template.h5"
    write_result(template, masks=np.zeros((8, 1, 48, 64), dtype=np.bool_), queries=[(0, 1, 1, 1)] * 50)
    for number in range(num_clips):
        path = folder / "clips" / f"day{number // 500:03d}" / f"{number:05d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, path)
        with h5py.File(path, "a", locking=False) as file:
            checks = {"1": {"visible": rng.random(), "in_mask": rng.random(), "mask_stability": rng.random()}}
            file.attrs["checks"] = json.dumps(checks)
            file.attrs["seconds"] = json.dumps({"track": rng.random()})
    (folder / "run.json").write_text("{}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="created if missing, and kept")
    parser.add_argument("--clips", type=int, default=10_000)
    options = parser.parse_args()
    if not (options.folder / "run.json").exists():
        write_run(options.folder, options.clips)
    for label in ("first", "again"):
        if label == "first":
            (options.folder / "index.npz").unlink(missing_ok=True)
        started = time.perf_counter()
        run = aot.open_run(options.folder)
        bad = run.where((run["visible"] < 0.1) & (run["mask_stability"] < 0.5))
        print(f"{label}: {len(run)} clips opened, {len(bad)} selected, {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
