"""Overhead of everything but the models: per clip, per run of many short clips, and for planning a large dataset.

    python -m benchmarks.overhead clips    [--clips 200 --frames 10 --width 854 --height 480] [KEY=VALUE …]
    python -m benchmarks.overhead planning [--clips 100000]

`clips` runs the same clips twice: by calling only the parts (decode, segment, sample points, track), and by the command
with one worker and the given overrides. The processor time of both depends little on what else the machine computes.
`planning` lists a dataset, determines what is pending and divides it, before
the first run, before the second, and after all clips are done. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.config import RunConfig, check_config
from aot.decoding import open_source
from aot.launching.plan import Plan, make_plan
from aot.launching.shards import pack
from aot.manifest.fit import check_prompts
from aot.paths import RunPaths
from aot.runs.ledger import Ledger, read_events
from aot.types import Clip, QueryPoints
from tests.synthetic import moving_square, write_video

PROMPTS = "clips: {'*': {objects: [{id: 1, box: [8, 20, 28, 40]}]}}\n"
CLIPS_PER_TASK = 16
_MAX_LINKS = 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["clips", "planning"])
    parser.add_argument("overrides", nargs="*", help="overrides of the command that `clips` runs")
    parser.add_argument("--clips", type=int, help="number of clips; default: 200 for `clips`, 100000 for `planning`")
    parser.add_argument("--frames", type=int, default=10)
    parser.add_argument("--width", type=int, default=854)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)  # one measurement, in a child process
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(run_parts(options.inside) if options.what == "clips" else plan_once(options.inside)))
        return 0
    with tempfile.TemporaryDirectory(prefix="aot-overhead-") as folder:
        if options.what == "clips":
            measure_clips(
                Path(folder), options.clips or 200, options.frames, (options.width, options.height), options.overrides
            )
        else:
            measure_planning(Path(folder), options.clips or 100_000)
    return 0


def measure_clips(folder: Path, num_clips: int, num_frames: int, size: tuple[int, int], overrides: list[str]) -> None:
    """Run clips by calling only the parts and by the command, and compare."""
    width, height = size
    video = write_video(folder / "source.mp4", moving_square(num_frames, width, height))
    (folder / "clips").mkdir()
    for number in range(num_clips):
        os.link(video, folder / "clips" / f"c{number:04}.mp4")
    (folder / "clips" / "prompts.yaml").write_text(PROMPTS)
    processor_seconds = [children_seconds()]
    parts_seconds = measure_in_child("clips", folder)["seconds"]
    processor_seconds.append(children_seconds())
    started_at = time.perf_counter()
    command = [sys.executable, "-m", "aot.run", *arguments(folder), *overrides]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall = time.perf_counter() - started_at
    processor_seconds.append(children_seconds())
    (root,) = (folder / "outputs" / "videos").iterdir()
    started, done, ended = (list(read_events(RunPaths(root), [kind])) for kind in ("started", "done", "ended"))
    workers = {event["pid"] for event in started if event["work"] == "all"}
    if len(done) != num_clips or len(workers) != 1:
        raise SystemExit(f"{len(done)} of {num_clips} clips are done, by {len(workers)} workers")
    worker_seconds = (time_of(ended[-1]) - time_of(started[0])).total_seconds()
    print(f"{num_clips} clips of {num_frames} frames, {width}x{height} px, one worker, parts built once")
    print(f"parts only         {parts_seconds:8.2f} s, {parts_seconds / num_clips:.3f} s per clip")
    ratio = wall / parts_seconds
    print(f"command            {wall:8.2f} s, {wall / num_clips:.3f} s per clip, {ratio:.2f} x (goal: below 1.3)")
    own, whole = np.diff(processor_seconds)
    print(f"processor time     {whole:8.2f} s, of the parts {own:.2f} s, {whole / own:.2f} x, with the start of both")
    print(f"overhead per clip  {(worker_seconds - parts_seconds) / num_clips:8.3f} s (goal: below 0.15)")
    print(f"start and exit     {wall - worker_seconds:8.2f} s")


def children_seconds() -> float:
    """Processor time of all child processes that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure_planning(folder: Path, num_clips: int) -> None:
    """Plan a dataset before its first run, before the second, and after all clips are done."""
    video = write_video(folder / "source.mp4", moving_square(10))
    for number in range(num_clips):
        path = folder / "clips" / f"day{number // 1000:03}" / f"c{number:06}.mp4"
        copy_or_link(video, path, number)
    (folder / "clips" / "prompts.yaml").write_text(PROMPTS)
    print(f"planning {num_clips} clips (goal: below 20 s and 500 MB)")
    for state in ("first", "again", "all done"):
        if state == "all done":
            write_finished_run(folder, video)
        measured = measure_in_child("planning", folder)
        print(
            f"{state:10} {measured['seconds']:6.1f} s {measured['peak_mb']:6.0f} MB, {measured['pending']} clips in "
            f"{measured['shards']} shards"
        )


def run_parts(folder: Path) -> dict[str, Any]:
    """Process all clips by calling only the parts: nothing is written, resumed, recorded or isolated."""
    config = config_of(folder)
    segmenter, sampler, tracker = (part.build() for part in (config.segmenter, config.query_points, config.tracker))
    clips: list[Clip] = config.dataset.build().clips()
    started_at = time.perf_counter()
    for clip in clips:
        with open_source(clip) as frames:
            prompts, _ = check_prompts(
                clip.prompts,
                width=frames.width,
                height=frames.height,
                frames=frames.index.tolist(),
                num_source_frames=frames.num_source_frames,
            )
            masks = [block.masks for block in segmenter.segment(frames, prompts, on_object_error=lambda *_: None)]
            xy = sampler.sample(masks[0][0, 0])
            txy = np.column_stack([np.zeros(len(xy), dtype=np.float32), xy])
            tracker.track(frames, QueryPoints(txy=txy, object_id=np.ones(len(xy), dtype=np.int32)))
    return {"seconds": time.perf_counter() - started_at}


def plan_once(folder: Path) -> dict[str, Any]:
    """Plan as a command with launcher=slurm does, up to the submission."""
    started_at = time.perf_counter()
    plan = plan_of(folder)
    plan.write(with_sizes=True)
    pending = {task.clip.clip_id for task in plan.tasks() if task.work.value == "all"}
    costs = {clip_id: plan.costs[clip_id] for clip_id in pending}
    shards = pack(costs, -(-len(costs) // CLIPS_PER_TASK), CLIPS_PER_TASK) if costs else []
    return {
        "seconds": time.perf_counter() - started_at,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "pending": len(pending),
        "shards": len(shards),
    }


def write_finished_run(folder: Path, video: Path) -> None:
    """Write what a run without failures leaves: a result per clip, and its events in the ledger."""
    plan = plan_of(folder)
    summary = {
        "clip_id": "", "num_objects": 1, "num_points": 200, "num_frames": 10, "num_source_frames": 10,
        "frame_interval": 1, "visible_share": 0.98, "in_mask_share": 0.97, "peak_memory_bytes": 2**30, "rung": 1,
        "seconds": dict.fromkeys("hash open prompts wait_for_frames segment query_points track write".split(), 0.1),
        "object_errors": {}, "num_attempts": 1,
    }  # fmt: skip
    ledger = Ledger(plan.paths.ledger("worker-1-0"))
    for number, clip in enumerate(plan.clips):
        copy_or_link(video, plan.paths.clip(clip.clip_id).result, number)
        fingerprint = plan.fingerprints[clip.clip_id]
        rung = {"rung": 1, "frame_interval": 1, "lean": False}
        ledger.append("started", clip_id=clip.clip_id, content=fingerprint.digest, work="all", **rung)
        ledger.append("done", clip_id=clip.clip_id, content=fingerprint.as_json(), summary=summary)
        ledger.append("scored", clip_id=clip.clip_id, file_sha256="0", scores={})
        ledger.append("ended", clip_id=clip.clip_id, state="done")


def copy_or_link(source: Path, path: Path, number: int) -> None:
    """Create one of many identical files as a hard link; a file system allows some ten thousand links per file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    original = source.with_name(f"{path.suffix[1:]}-{number // _MAX_LINKS}{source.suffix}")
    if not original.exists():
        shutil.copy(source, original)
    os.link(original, path)


def measure_in_child(what: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.overhead", what, "--inside", str(folder)]
    measured: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return measured


def arguments(folder: Path) -> list[str]:
    return [
        "dataset=videos", f"dataset.root={folder / 'clips'}", f"output.root={folder / 'outputs'}",
        "output.overlay=false", "segmenter=grabcut", "tracker=lucas_kanade", "query_points=adaptive",
        "launcher=local", "launcher.workers=1",
    ]  # fmt: skip


def config_of(folder: Path) -> RunConfig:
    (job,), _ = compose_jobs(parse_command(arguments(folder)))
    return check_config(job.values, job.choices)


def plan_of(folder: Path) -> Plan:
    config = config_of(folder)
    return make_plan(config, config.run_folder)


def time_of(event: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(event["at"])


if __name__ == "__main__":
    sys.exit(main())
