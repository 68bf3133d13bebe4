"""Size and time of every export format for real clips: the table of docs/export.md.

    python -m benchmarks.exports --data FOLDER/clips FOLDER/davis_clips --out /tmp/exports

FOLDER/clips/<name>/ contains clip.mp4 and prompt.json, as for `benchmarks.real_clips`. The clips are run with GrabCut
and Lucas-Kanade, unless the results exist, and then exported in this process, one format after the other. The processor
time is that of this process; the rest of the time it waits for the disk, or for other processes. Formats for datasets
that the clips are not of (lerobot) are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from aot.errors import AotError
from aot.export.lerobot.write_back import FORMAT as LEROBOT
from aot.export.options import ExportOptions
from aot.export.run import FORMATS, create_exporter, select_clips
from aot.paths import RunPaths
from benchmarks.real_clips import manifest_of

OF_ANY_DATASET = [name for name in FORMATS if name != LEROBOT]
MODELS = ("segmenter=grabcut", "tracker=lucas_kanade")
VARIANTS = {
    "davis": [("", ExportOptions()), ("--with-frames", ExportOptions(with_frames=True))],
    "coco": [("", ExportOptions()), ("--with-frames", ExportOptions(with_frames=True))],
    "tapvid": [("", ExportOptions()), ("--no-video", ExportOptions(with_video=False))],
    "rerun": [("", ExportOptions()), ("--no-video", ExportOptions(with_video=False))],
}
"""The other formats are exported with their defaults only."""


@dataclass(frozen=True)
class Measured:
    """What one format takes for all clips."""

    command: str
    seconds: float
    cpu_seconds: float
    num_bytes: int
    num_files: int
    failed: str
    """The first error; empty if there was none."""

    def row(self) -> str:
        result = (
            self.failed
            or f"{self.num_bytes / 1e6:.1f} | {self.num_files} | {self.seconds:.1f} | {self.cpu_seconds:.1f}"
        )
        return f"| `{self.command}` | {result} |"


def run_clips(data: list[Path], out: Path) -> Path:
    """The run folder of all clips, which is computed or resumed."""
    videos = out / "data"
    for folder in data:
        for prompt in sorted(folder.glob("*/prompt.json")):
            target = videos / f"{folder.name}_{prompt.parent.name}"
            target.mkdir(parents=True, exist_ok=True)
            for name in ("clip.mp4", "prompt.json"):
                if not (target / name).exists():
                    shutil.copyfile(prompt.parent / name, target / name)
    manifest = out / "prompts.json"
    manifest.write_text(json.dumps(manifest_of(videos, None)))
    command = [
        sys.executable, "-m", "aot.run", "dataset=videos", f"dataset.root='{videos}'", f"dataset.prompts='{manifest}'",
        f"output.root='{out / 'run'}'", "output.overlay=false", "output.report=false", *MODELS,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    (run,) = (out / "run" / "videos").iterdir()
    return run


def measure(run: Path, name: str, options: ExportOptions, flags: str, out: Path) -> Measured:
    """Export all clips in one format into an empty folder, which is removed again."""
    command = f"{name} {flags}".strip()
    folder = out / "exported" / command.replace(" ", "_")
    shutil.rmtree(folder, ignore_errors=True)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        clips, _ = select_clips(RunPaths(run), ["*"])
        exporter = create_exporter(name, clips, options)
        for clip in clips:
            exporter.export(clip, folder)
    except AotError as error:
        return Measured(command, 0.0, 0.0, 0, 0, str(error))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    shutil.rmtree(folder)
    return Measured(command, seconds, cpu_seconds, sum(sizes), len(sizes), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True, help="for the run and the exports; the run is kept")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=OF_ANY_DATASET)
    options = parser.parse_args()
    run = run_clips(options.data, options.out)
    results = sorted(RunPaths(run).results.rglob("*.h5"))
    print(f"{len(results)} results, {sum(path.stat().st_size for path in results) / 1e6:.1f} MB, in {run}")
    print("| format | MB | files | s | processor time, s |\n|---|---:|---:|---:|---:|")
    for name in options.formats:
        for flags, chosen in VARIANTS.get(name, [("", ExportOptions())]):
            print(measure(run, name, chosen, flags, options.out).row(), flush=True)


if __name__ == "__main__":
    main()
