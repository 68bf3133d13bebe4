"""What a run of many clips costs: time, memory and system calls of each command, on a run that is made from copies.

    python -m benchmarks.scale --folder /tmp/scale --clips 20000
    python -m benchmarks.scale --folder /tmp/scale --clips 100000 --only task status

One small clip is computed; its files are copied (as hard links) and its events repeated, as if SLURM tasks of 16 clips
had computed all of them: the last 256 tasks still run, all others have ended. Then these are measured, each in a new
process:

    task      what a task reads before its first clip
    wait      one minute of a command that waits for the running tasks
    status    `python -m aot.status RUN`, and a second look of `--watch`
    done      the same command when all clips are done, for the first time and again

With strace, the system calls are counted, too: of the complete command, or between two marks, so that imports do not
count.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from aot.paths import RunPaths
from aot.run import main as run_main
from aot.runs.ledger_files import BATCH_LEDGERS
from aot.runs.state import merge_ended_ledgers
from aot.system.memory import peak_memory_bytes
from tests.synthetic import moving_square, write_video

CLIPS_PER_TASK = 16
NUM_LIVING_TASKS = 256
WAIT_SECONDS = 60.0
# File systems limit the links to a file; ext4 allows 65,000.
MAX_LINKS = 20_000
MARK = "/aot-scale-mark"
COMMANDS = ("task", "wait", "status", "done")
OPTIONS = ["dataset=videos", "segmenter=grabcut", "tracker=lucas_kanade"]
CALLS = {
    "open": ("open", "openat"),
    "stat": ("stat", "lstat", "fstat", "newfstatat", "statx"),
    "fsync": ("fsync", "fdatasync"),
}


class MadeRun:
    """A run of many clips.

    Args:
        folder: of everything.
        num_clips: number of clips.
    """

    def __init__(self, folder: Path, num_clips: int) -> None:
        self.folder = folder / str(num_clips)
        self.num_clips = num_clips
        self.videos = self.folder / "videos"
        self.marker = self.folder / "made"

    @property
    def paths(self) -> RunPaths:
        (root,) = (self.folder / "outputs" / "videos").iterdir()
        return RunPaths(root)

    def command(self, *arguments: str) -> list[str]:
        return [*OPTIONS, f"dataset.root={self.videos}", f"output.root={self.folder / 'outputs'}", *arguments]

    def make(self) -> None:
        """Make the run, unless it was made before."""
        if self.marker.exists():
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        template = self._template()
        events = _events(template)
        links = _Links(self.num_clips)
        clip_ids = [f"day{number // 1000:03d}/clip{number:06d}" for number in range(self.num_clips)]
        for clip_id in clip_ids:
            links.make(self.videos.parent / "template" / "clip.mp4", self.videos / f"{clip_id}.mp4")
        shutil.copyfile(self.videos.parent / "template" / "prompts.yaml", self.videos / "prompts.yaml")
        root = self.folder / "outputs" / "videos" / template.root.name
        shutil.copytree(template.root, root, ignore=shutil.ignore_patterns("clip.*", "*.jsonl", "*.log", "index.npz"))
        paths, own = RunPaths(root), template.clip("clip")
        for clip_id in clip_ids:
            clip = paths.clip(clip_id)
            links.make(own.result, clip.result)
            links.make(own.overlay, clip.overlay)
            links.make(own.report.data, clip.report.data)
        run = json.loads(template.run_json.read_text())
        record = run["clips"]["clip"]
        run["config"]["dataset"] |= {"root": str(self.videos), "prompts": str(self.videos / "prompts.yaml")}
        run["config"]["output"]["root"] = str(self.folder / "outputs")
        run["clips"] = {clip_id: record | {"source": str(self.videos / f"{clip_id}.mp4")} for clip_id in clip_ids}
        paths.run_json.write_text(json.dumps(run))
        self._write_ledgers(paths, clip_ids, events)
        self.marker.touch()

    def _template(self) -> RunPaths:
        """A run of one clip."""
        videos = self.folder / "template"
        write_video(videos / "clip.mp4", moving_square(5, 96, 64, seed=0))
        prompts = "clips:\n  '*': {objects: [{id: 1, name: square, box: [8, 20, 28, 40]}]}\n"
        (videos / "prompts.yaml").write_text(prompts)
        outputs = self.folder / "template-outputs"
        arguments = [*OPTIONS, f"dataset.root={videos}", f"output.root={outputs}", "launcher.workers=1"]
        if run_main(arguments) != 0:
            raise SystemExit("the clip that is copied could not be computed")
        (root,) = (outputs / "videos").iterdir()
        return RunPaths(root)

    def _write_ledgers(self, paths: RunPaths, clip_ids: Sequence[str], events: Sequence[dict[str, Any]]) -> None:
        """One ledger of a worker and one of its drawer per task, as the supervisors of the tasks have left them.

        Args:
            paths: of the run.
            clip_ids: of all clips.
            events: of the clip that is copied.
        """
        tasks = [clip_ids[start : start + CLIPS_PER_TASK] for start in range(0, len(clip_ids), CLIPS_PER_TASK)]
        ended = paths.ended_ledgers
        ended.mkdir(parents=True, exist_ok=True)
        submitted = {}
        for number, task in enumerate(tasks):
            name = f"{100 + number // 1000}_{number % 1000}"
            submitted[name] = task
            is_living = number >= len(tasks) - NUM_LIVING_TASKS
            folder = paths.ledgers if is_living else ended
            for slot in ("0", "draw0"):
                own = [event for event in events if ("draw" in event["worker"]) == (slot == "draw0")]
                worker = f"{name}.node{number % 64:02d}-{1000 + number}-{slot}"
                origin = {"worker": worker, "host": f"node{number % 64:02d}", "pid": 1000 + number, "task": name}
                lines = [json.dumps({**event, **origin, "clip_id": clip_id}) for clip_id in task for event in own]
                (folder / f"{worker}.jsonl").write_text("\n".join(lines) + "\n")
        record = paths.submissions / "20260101-000000-made" / "tasks.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps(submitted))
        names = sorted(path for path in ended.iterdir())
        aside = self.folder / "aside"
        aside.mkdir()
        for path in names:
            path.rename(aside / path.name)
        for start in range(0, len(names), BATCH_LEDGERS):  # as they are merged while a run goes along
            for path in names[start : start + BATCH_LEDGERS]:
                (aside / path.name).rename(path)
            merge_ended_ledgers(paths)


class _Links:
    """Hard links to files, with a new copy of a file where it has too many.

    Args:
        num_clips: links per file.
    """

    def __init__(self, num_clips: int) -> None:
        self._num_links: Counter[Path] = Counter()
        self._copies: dict[Path, Path] = {}

    def make(self, source: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if self._num_links[source] % MAX_LINKS == 0:
            shutil.copy2(source, target)
            self._copies[source] = target
        else:
            os.link(self._copies[source], target)
        self._num_links[source] += 1


def _events(paths: RunPaths) -> list[dict[str, Any]]:
    ledgers = sorted(paths.ledgers.rglob("*.jsonl"))
    return [json.loads(line) for path in ledgers for line in path.read_text().splitlines()]


def mark() -> None:
    """A system call by which strace shows where a measurement begins and ends."""
    with suppress(OSError):
        Path(MARK).stat()


def measure_task(run: MadeRun, state: Path) -> dict[str, Any]:
    """What a task does before its first clip; its clips and their state are handed over in a pickle.

    Their results are taken away meanwhile.
    """
    from aot.launching.slurm.launcher import Task

    task: Task = pickle.loads(state.read_bytes())
    results = [run.paths.clip(each.clip.clip_id).result for each in task.clip_tasks]
    for result in results:
        result.rename(result.with_suffix(".away"))
    mark()
    started = time.perf_counter()
    tasks = task.run.tasks_since(task.clip_tasks, "106_240")
    seconds = time.perf_counter() - started
    mark()
    for result in results:
        result.with_suffix(".away").rename(result)
    return {"seconds": seconds, "clips": len(tasks), **_memory()}


def hand_over(run: MadeRun, state: Path) -> None:
    """Write what a task of the last clips would be handed, as if they had not been computed."""
    from aot.arguments import parse_command
    from aot.compose import compose_jobs
    from aot.config import check_config
    from aot.launching.plan import RunContext
    from aot.launching.slurm.launcher import Task
    from aot.launching.supervised_child import WorkerLimits
    from aot.runs.fingerprint import Fingerprint
    from aot.runs.task import ClipTask, Work

    jobs, _ = compose_jobs(parse_command(run.command()))
    config = check_config(jobs[0].values, jobs[0].choices)
    clips = config.dataset.build().clips()[-CLIPS_PER_TASK:]
    tasks = tuple(ClipTask(clip, Work.ALL, Fingerprint.of(clip)) for clip in clips)
    state.write_bytes(pickle.dumps(Task(RunContext(config, run.paths), tasks, None, WorkerLimits(600.0, None), 9000.0)))


def measure_wait(run: MadeRun, state: Path) -> dict[str, Any]:
    """One minute of waiting for the last tasks, which do nothing."""
    from aot.arguments import parse_command
    from aot.compose import compose_jobs
    from aot.config import check_config
    from aot.launching.plan import make_plan
    from aot.launching.slurm.launcher import Task
    from aot.launching.slurm.monitor import SlurmWait

    living = {f"{100 + number // 1000}_{number % 1000}" for number in _living_numbers(run)}

    class Queue:
        def task_states(self, tasks: Iterable[str]) -> dict[str, str]:
            return {task: "RUNNING" if task in living else "COMPLETED" for task in tasks}

        def last_states(self, tasks: Iterable[str]) -> dict[str, str]:
            return {}

    class Clock:
        def __init__(self) -> None:
            self.end = 0.0

        def monotonic(self) -> float:
            return time.monotonic()

        def sleep(self, seconds: float) -> None:
            if not self.end:
                mark()
                self.end = time.monotonic() + WAIT_SECONDS
            if time.monotonic() >= self.end:
                mark()
                raise KeyboardInterrupt
            time.sleep(min(seconds, self.end - time.monotonic()))

    jobs, _ = compose_jobs(parse_command(run.command()))
    plan = make_plan(check_config(jobs[0].values, jobs[0].choices), run.paths.root)
    handed: Task = pickle.loads(state.read_bytes())
    tasks = handed.clip_tasks
    plan.tasks()
    waiting = SlurmWait(plan, None, 30.0, queue=Queue(), clock=Clock())  # type: ignore[arg-type]
    waiting.begin(tasks)
    with suppress(KeyboardInterrupt):
        waiting()
    return {"seconds": WAIT_SECONDS, **_memory()}


def _living_numbers(run: MadeRun) -> range:
    num_tasks = -(-run.num_clips // CLIPS_PER_TASK)
    return range(max(0, num_tasks - NUM_LIVING_TASKS), num_tasks)


def measure_watch(run: MadeRun) -> dict[str, Any]:
    """A second look at the state of the run."""
    from aot.status import StatusReader

    reader = StatusReader(run.paths)
    started = time.perf_counter()
    reader.read()
    first = time.perf_counter() - started
    mark()
    started, used = time.perf_counter(), time.process_time()
    reader.read()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    mark()
    return {"seconds": seconds, "first_look_seconds": first, "cpu_seconds": used, **_memory()}


def _memory() -> dict[str, float]:
    return {"memory_mb": round(peak_memory_bytes() / 2**20)}


def measured(name: str, command: Sequence[str], *, is_marked: bool, counts_calls: bool) -> dict[str, Any]:
    """Run a command and measure it; with strace a second time, to count its system calls.

    Args:
        name: printed.
        command: to run.
        is_marked: whether only the calls between two marks count; such a command prints its own measurement.
        counts_calls: whether to run it with strace, too.
    """
    started = time.perf_counter()
    log = Path(tempfile.mkstemp(prefix="aot-scale-")[1])
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
    peak = 0
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        with suppress(OSError, ValueError):
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *map(int, re.findall(r"VmHWM:\s+(\d+)", status))])
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    output = log.read_text()
    used = ended[2].ru_utime + ended[2].ru_stime
    found: dict[str, Any] = {"what": name, "seconds": round(seconds, 2), "cpu_seconds": round(used, 2)}
    found["exit_code"] = process.returncode = os.waitstatus_to_exitcode(ended[1])
    found["memory_mb"] = round(peak / 1024)
    log.unlink()
    if is_marked:
        found |= json.loads(output.splitlines()[-1])
    if counts_calls and shutil.which("strace"):
        found["calls"] = _calls(command, is_marked=is_marked)
    return found


def _calls(command: Sequence[str], *, is_marked: bool) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".strace") as log:
        names = ",".join(name for names in CALLS.values() for name in names)
        subprocess.run(
            ["strace", "-f", "-qq", "-e", f"trace=?{names.replace(',', ',?')}", "-o", log.name, *command],
            stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        lines = Path(log.name).read_text(errors="replace").splitlines()
    if is_marked:
        marks = [number for number, line in enumerate(lines) if f'"{MARK}"' in line]
        lines = lines[marks[0] + 1 : marks[-1]]
    counts: Counter[str] = Counter(found[1] for line in lines if (found := re.match(r"(?:\d+ +)?(\w+)\(", line)))
    return {kind: sum(counts[name] for name in names) for kind, names in CALLS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the run, which is kept; yours only")
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--no-strace", action="store_true", help="do not count system calls")
    parser.add_argument("--in-process", choices=("task", "wait", "watch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    run = MadeRun(options.folder.absolute(), options.clips)
    state = run.folder / "task.pickle"
    if options.in_process:
        measure = {"task": partial(measure_task, run, state), "wait": partial(measure_wait, run, state)}
        print(json.dumps(measure.get(options.in_process, partial(measure_watch, run))()))
        return
    run.make()
    counts = not options.no_strace
    own = [sys.executable, "-m", "benchmarks.scale", "--folder", str(options.folder), "--clips", str(options.clips)]
    status = [sys.executable, "-m", "aot.status", str(run.paths.root)]
    done = [sys.executable, "-m", "aot.run", *run.command()]
    num_tasks = -(-options.clips // CLIPS_PER_TASK)
    print(f"{options.clips} clips in {num_tasks} tasks; run folder {run.paths.root}", flush=True)

    def show(name: str, command: Sequence[str], *, is_marked: bool = False, counts_calls: bool = counts) -> None:
        print(json.dumps(measured(name, command, is_marked=is_marked, counts_calls=counts_calls)), flush=True)

    if "done" in options.only:
        run.paths.index.unlink(missing_ok=True)
        show("all done, first", done, counts_calls=False)
        show("all done, again", done)
    if "status" in options.only:
        show("status", status)
        show("second look of --watch", [*own, "--in-process", "watch"], is_marked=True)
    if "task" in options.only or "wait" in options.only:
        hand_over(run, state)
    if "task" in options.only:
        show("start of a task", [*own, "--in-process", "task"], is_marked=True)
    if "wait" in options.only:
        show("a minute of waiting", [*own, "--in-process", "wait"], is_marked=True)


if __name__ == "__main__":
    main()
