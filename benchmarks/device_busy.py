"""Share of the time in which the device of a worker is busy, with parts that sleep as long as a GPU would compute.

    python -m benchmarks.device_busy [--sizes 480p 720p 1080p] [--clips 20 --frames 60] [--speed 1 3]
                                     [--before COMMIT] [KEY=VALUE …]

The segmenter sleeps 25 ms per frame and the tracker 0.209 ms per frame and point, which is what SAM 2.1 large and
CoTracker3 take on an A100-class GPU; `--speed 3` pretends a GPU three times as fast. Everything else is the real
command: decoding, writing, scoring, drawing and reporting, with one worker and its drawers. The share is the time slept
divided by the wall time of the whole command, less 3 s for its start. `--before` runs the same clips with an earlier
version too, which it checks out beside the clips. Run it on an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

import benchmarks.sleeping_parts
from benchmarks.overlay import RADIUS, SIZES, SPEED, STARTS, images, mask_reader
from tests.synthetic import write_video

REPOSITORY = Path(__file__).resolve().parents[1]
SEGMENTER_SECONDS = 0.025
"""Per frame."""
TRACKER_SECONDS = 0.000209
"""Per frame and point."""
NUM_POINTS = 200
START_SECONDS = 3.0
"""Of the wall time, which is not counted: the start of the command and of its worker."""


@dataclass(frozen=True)
class Measured:
    """One command."""

    wall_seconds: float
    slept_seconds: float

    @property
    def share(self) -> float:
        return self.slept_seconds / (self.wall_seconds - START_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--speed", type=float, nargs="+", default=[1.0], help="of the pretended GPU, times an A100")
    parser.add_argument("--before", metavar="COMMIT", help="an earlier version to compare with")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="of the command")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aot-busy-") as name:
        folder = Path(name)
        versions = {"now": REPOSITORY}
        if options.before:
            versions = {options.before: check_out(options.before, folder / "before"), **versions}
        print(f"{options.clips} clips of {options.frames} frames, {NUM_POINTS} points, {os.cpu_count()} cores")
        print("| size | speed | version | wall s | slept s | busy share |")
        print("|---|---|---|---|---|---|")
        for size in options.sizes:
            clips = write_clips(folder / size, size, options.clips, options.frames)
            for speed in options.speed:
                parts = write_options(clips, speed, size)
                for version, repository in versions.items():
                    measured = measure(repository, clips, parts, options.clips, options.overrides)
                    print(
                        f"| {size} | {speed:g} | {version} | {measured.wall_seconds:.1f} | "
                        f"{measured.slept_seconds:.1f} | {measured.share:.3f} |",
                        flush=True,
                    )
    return 0


def check_out(commit: str, folder: Path) -> Path:
    """The files of an earlier version, as its archive has them."""
    folder.mkdir()
    archive = subprocess.run(["git", "-C", REPOSITORY, "archive", commit], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-x", "-C", folder], check=True, input=archive.stdout)
    return folder


def write_clips(folder: Path, size: str, num_clips: int, num_frames: int) -> Path:
    """A folder of clips with one moving disc, its masks, and the parts that return them."""
    width, height = SIZES[size]
    scale = height / 480
    video = write_video(folder / "source.mp4", images(num_frames, width, height))
    (folder / "clips").mkdir()
    for number in range(num_clips):
        os.link(video, folder / "clips" / f"c{number:03}.mp4")
    x, y = (scale * value for value in STARTS[0])
    box = [round(value) for value in (x - scale * RADIUS, y - scale * RADIUS, x + scale * RADIUS, y + scale * RADIUS)]
    (folder / "clips" / "prompts.yaml").write_text(f"clips: {{'*': {{objects: [{{id: 1, box: {box}}}]}}}}\n")
    masks = mask_reader(width, height, scale)
    np.save(folder / "masks.npy", np.stack([masks(frame)[:1] for frame in range(num_frames)]))
    shutil.copy(str(benchmarks.sleeping_parts.__file__), folder / "sleeping_parts.py")
    return folder


def write_options(folder: Path, speed: float, size: str) -> Path:
    """Options `segmenter=sleeping` and `tracker=sleeping`."""
    velocity = [float(SIZES[size][1] / 480 * value) for value in SPEED]
    parts: dict[str, dict[str, object]] = {
        "segmenter": {"_target_": "sleeping_parts.SleepingSegmenter", "seconds_per_frame": SEGMENTER_SECONDS / speed},
        "tracker": {
            "_target_": "sleeping_parts.SleepingTracker",
            "seconds_per_point": TRACKER_SECONDS / speed,
            "velocity": velocity,
        },
    }
    for group, part in parts.items():
        path = folder / "options" / group / "sleeping.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({**part, "folder": str(folder)}))
    return folder / "options"


def measure(repository: Path, folder: Path, options: Path, num_clips: int, overrides: list[str]) -> Measured:
    """Run the command of one version on all clips.

    Raises:
        SystemExit: the command failed, or has not drawn and reported every clip.
    """
    for earlier in folder.glob("slept-*.txt"):
        earlier.unlink()
    shutil.rmtree(folder / "outputs", ignore_errors=True)
    command = [
        sys.executable, "-m", "aot.run",
        "--config-dir", str(options), "dataset=videos", f"dataset.root={folder / 'clips'}",
        f"output.root={folder / 'outputs'}", "segmenter=sleeping", "tracker=sleeping", "query_points=adaptive",
        f"query_points.num_points={NUM_POINTS}", f"query_points.min_points={NUM_POINTS}",
        "launcher=local", "launcher.workers=1", *overrides,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(repository), str(folder)])}
    started_at = time.perf_counter()
    finished = subprocess.run(
        command, cwd=repository, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wall_seconds = time.perf_counter() - started_at
    (run,) = (folder / "outputs" / "videos").iterdir()
    for kind in ("clips/*.h5", "overlays/*.mp4", "report/data/clips/*.js"):
        num_written = len(list(run.glob(kind)))
        if num_written != num_clips:
            raise SystemExit(f"{num_written} of {num_clips} files {kind} were written:\n{finished.stdout}")
    if finished.returncode != 0:
        raise SystemExit(f"the command ended with exit code {finished.returncode}:\n{finished.stdout}")
    slept = [float(line) for path in folder.glob("slept-*.txt") for line in path.read_text().splitlines()]
    return Measured(wall_seconds, sum(slept))


if __name__ == "__main__":
    sys.exit(main())
