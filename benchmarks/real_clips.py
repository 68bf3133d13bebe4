"""Run folders of real clips through `aot.run` and print quality, speed, time per stage and peak memory.

    python benchmarks/real_clips.py --data FOLDER/davis_clips --out /tmp/out
    python benchmarks/real_clips.py --data FOLDER/clips --out /tmp/out --no-overlay

FOLDER/<name>/ contains clip.mp4 and prompt.json ({"objects": [{"id", "box", "points", "labels"}], "frame"}), optionally
Annotations/ (0/255 PNGs, one per frame). With --tracks FOLDER/tracks, the joints of badja_<name>/tracks.npz are tracked
instead of sampled points, and PCK is scored at 0.2 times the square root of the mask's area.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


def manifest_of(data: Path, tracks: Path | None) -> dict[str, Any]:
    """One manifest entry per clip, from its prompt.json."""
    clips = {}
    for path in sorted(data.glob("*/prompt.json")):
        prompt = json.loads(path.read_text())
        objects = [
            {key: item[key] for key in ("id", "box", "points", "labels")} | {"frame": prompt["frame"]}
            for item in prompt["objects"]
        ]
        joints = None if tracks is None else tracks / f"badja_{path.parent.name}" / "tracks.npz"
        if joints is not None and joints.is_file():
            objects[0]["query_points"] = first_visible(joints)
        if tracks is None or (joints is not None and joints.is_file()):
            clips[f"{path.parent.name}/clip"] = {"objects": objects}
    return {"clips": clips}


def first_visible(path: Path) -> list[list[float]]:
    """(frame, x, y) of the first frame on which each joint is annotated and visible."""
    with np.load(path) as truth:
        seen = truth["visible"] & truth["annotated"]
        points = truth["points_xy"]
    return [
        [int(frames[0]), *map(float, points[joint, frames[0]])]
        for joint in range(len(points))
        if len(frames := np.flatnonzero(seen[joint]))
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tracks", type=Path)
    parser.add_argument("--no-overlay", action="store_true")
    parser.add_argument("overrides", nargs="*", help="further overrides for aot.run")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    manifest = options.out / "prompts.json"
    manifest.write_text(json.dumps(manifest_of(options.data, options.tracks)))
    tracks = (
        [] if options.tracks is None else [f"dataset.tracks_pattern='{options.tracks}/badja_{{folder}}/tracks.npz'"]
    )
    command = [
        sys.executable, "-m", "aot.run", "dataset=videos", f"dataset.root='{options.data}'",
        f"dataset.prompts='{manifest}'", f"dataset.masks_pattern='{options.data}/{{folder}}/Annotations'", *tracks,
        f"output.root='{options.out}'", f"output.overlay={not options.no_overlay}", *options.overrides,
    ]  # fmt: skip
    exit_code = subprocess.run(command, check=False).returncode
    for summary in sorted(options.out.glob("videos/*/summary.csv")):
        report(summary)
    return exit_code


def report(summary: Path) -> None:
    """Print the time of every stage of all clips, that of drawing beside the models included."""
    rows = [row for row in csv.DictReader(summary.open()) if row["frames"]]
    stages = {
        column.removesuffix("_seconds"): sum(float(row[column] or 0) for row in rows)
        for column in rows[0]
        if column.endswith("_seconds")
    }
    spent, frames = sum(float(row["seconds"]) for row in rows), sum(int(row["frames"]) for row in rows)
    print(f"{summary.parent}: {frames} frames, {frames / spent:.1f} frames/s of a worker, without drawing")
    total = sum(stages.values())
    for stage, seconds in stages.items():
        print(f"  {stage:<16}{seconds:8.2f} s  {seconds / total:6.1%}  {1000 * seconds / frames:7.2f} ms per frame")
    print(f"  peak memory {max(float(row['peak_memory_mb']) for row in rows):.0f} MiB")


if __name__ == "__main__":
    sys.exit(main())
