"""Compare points that are chosen once with points that follow their object (query_points.reseed) on real clips.

    python benchmarks/reseed.py --data FOLDER/clips --out /tmp/out
    python benchmarks/reseed.py --data FOLDER/clips --out /tmp/out tracker=cotracker3 tracker.checkpoint=FILE

FOLDER is that of `benchmarks/real_clips.py`. Every clip is run twice, without and with added points, by one worker and
without drawings, GrabCut and Lucas-Kanade unless overrides say otherwise. Per clip:

    coverage   mean over the frames with a mask of how much of it valid points cover (docs/flow.md)
    points     of all objects
    life       median number of frames on which a track is valid
    outside    of the visible positions, those outside their object's mask; then of the valid ones
    s, MB      seconds of a worker and peak memory with added points, in addition to those without
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import aot
from aot.types import BoolArray, ClipResult
from benchmarks.real_clips import manifest_of


@dataclass(frozen=True)
class Measured:
    """What is printed of one clip."""

    coverage: float
    num_points: int
    median_life: float
    outside_visible: float
    outside_valid: float
    seconds: float
    peak_bytes: int

    @classmethod
    def of(cls, result: ClipResult) -> Measured:
        attributes = result.attributes
        return cls(
            coverage=float(np.nanmean(result.coverage)),
            num_points=len(result.query),
            median_life=float(np.median(result.lifetimes.valid.sum(axis=0))),
            outside_visible=share_outside(result, result.tracks.visible),
            outside_valid=share_outside(result, result.lifetimes.valid),
            seconds=sum(json.loads(attributes["seconds"]).values()),
            peak_bytes=attributes["peak_memory_bytes"],
        )


def share_outside(result: ClipResult, chosen: BoolArray) -> float:
    """Of the chosen positions (T, N) on rows with masks, the fraction outside the object's mask."""
    rows = result.mask_row
    return float(1 - result.in_mask[rows][chosen[rows]].mean())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("overrides", nargs="*", default=[], help="of aot.run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = options.out / "prompts.json"
    manifest.write_text(json.dumps(manifest_of(options.data, None)))
    runs = {is_added: run(options, manifest, is_added) for is_added in (False, True)}
    print("clip               coverage       points     life        outside, visible/valid        s      MB")
    for clip_id, before in runs[False].items():
        after = runs[True].get(clip_id)
        if after is not None:
            print(line(clip_id, before, after), flush=True)
    return 0 if runs[False].keys() == runs[True].keys() else 1


def run(options: argparse.Namespace, manifest: Path, reseed: bool) -> dict[str, Measured]:
    """Run all clips; by clip id."""
    root = options.out / ("reseed" if reseed else "once")
    command = [
        sys.executable, "-m", "aot.run", "dataset=videos", f"dataset.root='{options.data}'",
        f"dataset.prompts='{manifest}'", f"output.root='{root}'", "output.overlay=false", "output.report=false",
        "segmenter=grabcut", "tracker=lucas_kanade", f"query_points.reseed={reseed}", "launcher.workers=1",
        *options.overrides,
    ]  # fmt: skip
    subprocess.run(command, check=False, stdout=sys.stderr)
    (folder,) = (root / "videos").iterdir()
    return {result.attributes["clip_id"]: Measured.of(result) for result in read(folder)}


def read(folder: Path) -> list[ClipResult]:
    return [aot.load(path, masks=False) for path in sorted((folder / "clips").rglob("*.h5"))]


def line(clip_id: str, before: Measured, after: Measured) -> str:
    return (
        f"{clip_id.removesuffix('/clip'):18} {before.coverage:.2f} → {after.coverage:.2f}  "
        f"{before.num_points:4} → {after.num_points:4}  {before.median_life:3.0f} → {after.median_life:3.0f}  "
        f"{before.outside_visible:.3f}/{before.outside_valid:.3f} → {after.outside_visible:.3f}/"
        f"{after.outside_valid:.3f}  {after.seconds - before.seconds:+6.1f}  "
        f"{(after.peak_bytes - before.peak_bytes) / 1e6:+6.0f}"
    )


if __name__ == "__main__":
    sys.exit(main())
