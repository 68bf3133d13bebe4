"""Inject faults into runs and count the clips that are lost.

    python -m tests.faults.campaign [--kills 200] [--times 10] [--clips 20] [FAULT …]

Every fault is injected into a run over `--clips` clips. After each fault, every file under its final name must be
complete and bit-identical to that of an undisturbed run; at the end the same command must finish the remaining clips.
The disks are real (tmpfs, which needs root to mount); failing and slow writes come from a preloaded library
(io_faults.c).
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np

from aot.paths import RunPaths
from aot.runs.ledger import last_done, read_events
from aot.runs.verify import Finding, State, verify_run
from aot.system.cli import EXIT_INTERRUPTED, EXIT_SOME_FAILED
from aot.system.processes import is_alive
from aot.verify import main as verify
from tests.faults.commands import Command
from tests.launching.clips import Clips, datasets_of
from tests.waiting import wait_until

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Size:
    """How often a fault is injected, and into runs over which clips."""

    times: int
    """Number of faults."""
    num_clips: int = 20
    shortest: int = 20
    """Number of frames of the shortest clip."""
    num_workers: int = 2
    has_overlays: bool = False

    def lengths(self) -> dict[str, int]:
        """Clip ids and their numbers of frames, all different."""
        return {f"day{number % 3}/c{number:02}": self.shortest + number for number in range(self.num_clips)}


@dataclass
class Outcome:
    """Counts for one kind of fault."""

    injected: int = 0
    """Number of faults."""
    survived: int = 0
    """Faults after which every file under its final name was complete and correct."""
    lost: list[str] = field(default_factory=list)
    """Clips that the same command did not complete at the end, or whose data differ from the reference."""
    message: str = ""
    """What the command reported, if the fault let it report anything."""


class Trial:
    """A dataset with its reference results, and the run folder that faults are injected into."""

    def __init__(self, folder: Path, size: Size, root: Path | None = None) -> None:
        self.lengths = size.lengths()
        self.has_overlays = size.has_overlays
        self.options = (f"launcher.workers={size.num_workers}", f"output.overlay={str(size.has_overlays).lower()}")
        self.clips = Clips(folder, self.lengths)
        self._root = f"output.root={root or folder / 'outputs'}"
        self._outputs = root or folder / "outputs"
        self.outcome = Outcome()
        self._expected, self.seconds = reference_run(tuple(self.lengths.items()))

    def command(self, *arguments: str, **environment: str) -> Command:
        return Command(self.clips, self._root, *arguments, environment=environment)

    @property
    def root(self) -> Path:
        (path,) = (self._outputs / "videos").iterdir()
        return path

    def result(self, clip_id: str) -> Path:
        return self.root / "clips" / f"{clip_id}.h5"

    def process(self, *, draws: bool) -> int | None:
        """The process id of a running worker, or drawer: the last one that has started a clip; None: there is none."""
        if not any(self._outputs.glob("videos/*/ledger")):
            return None
        started = read_events(RunPaths(self.root), ["started"])
        pids = [event["pid"] for event in started if (event["work"] != "all") == draws]
        return next((pid for pid in reversed(pids) if is_alive(pid)), None)

    def num_finished(self) -> int:
        return sum(map(self.exists, self.lengths))

    def num_left(self) -> int:
        """Number of clips that the same command processes; a clip whose workers were killed too often has failed."""
        return sum(1 for name in self.lengths if not self.exists(name) and not self.has_failed(name))

    def sleep_until(self, num_before: int, moment: float, command: Command) -> None:
        """Return at a moment of a command, counted in clips that are finished; below 0, before the first one."""
        num_more = int(max(moment, 0))
        if num_more:
            self.wait_for_clips(num_before + num_more, command)
        # A command takes about a second until its first clip.
        time.sleep(1 + moment if moment < 0 else (moment - num_more) * self.seconds / len(self.lengths))

    def wait_for_clips(self, count: int, command: Command) -> None:
        """Return when this many clips are finished, or the command has ended."""
        wait_until(lambda: not command.is_running() or self.num_finished() >= count, 600)

    def record_fault(self) -> None:
        """Count a fault, and whether every existing result is still correct."""
        self.outcome.injected += 1
        self.outcome.survived += not self.incorrect()

    def incorrect(self) -> list[str]:
        return [name for name in self.lengths if self.exists(name) and not self.is_correct(name)]

    def exists(self, name: str) -> bool:
        return any(self._outputs.glob(f"videos/*/clips/{name}.h5"))

    def has_failed(self, name: str) -> bool:
        return any(self._outputs.glob(f"videos/*/failures/{name}.json"))

    def is_correct(self, name: str) -> bool:
        try:
            found = datasets_of(self.result(name))
        except (OSError, KeyError, RuntimeError):
            return False
        expected = self._expected[name]
        return found.keys() == expected.keys() and all(_equal(found[key], expected[key]) for key in expected)

    def finish(self, *, retry: bool = True) -> None:
        """Run the same command again, which must complete all clips; `retry`: those that the fault made fail, too."""
        with self.command(*self.options, *(["retry=[all]"] if retry else [])) as command:
            code = command.wait()
        if code:
            print(command.output)
            self.outcome.lost.append(f"the command exited with {code}")
        self.outcome.lost += [name for name in self.lengths if not self.exists(name) or not self.is_correct(name)]
        done = last_done(RunPaths(self.root), "file_sha256")
        recorded = {name for name, event in done.items() if event["file_sha256"] is not None}
        self.outcome.lost += [f"not recorded, or not drawn: {name}" for name in self.lengths if name not in recorded]
        if self.has_overlays:
            self.outcome.lost += [f"no overlay: {name}" for name in self.lengths if not self.has_overlay(name)]
        self.outcome.lost += [f"no page of the report: {name}" for name in self.lengths if not self.has_page(name)]
        self.outcome.lost += [f"partial file left: {path}" for path in self.root.rglob("*.part")]
        self.outcome.lost += [f"aot.verify: {finding}" for finding in self.findings()]

    def has_page(self, name: str) -> bool:
        return RunPaths(self.root).clip(name).report.data.exists()

    def has_overlay(self, name: str) -> bool:
        """Whether the overlay of a clip shows every frame."""
        try:
            with av.open(str(RunPaths(self.root).clip(name).overlay)) as container:
                return sum(1 for _ in container.decode(video=0)) == self.lengths[name]
        except (OSError, av.FFmpegError):
            return False

    def findings(self) -> list[Finding]:
        """What `aot.verify` reports as missing or broken."""
        return [finding for finding in verify_run(RunPaths(self.root)) if finding.state is not State.COMPLETE]


@cache
def reference_run(clip_lengths: tuple[tuple[str, int], ...]) -> tuple[dict[str, dict[str, Any]], float]:
    """The datasets of every clip of a run without faults, and its duration in seconds."""
    lengths = dict(clip_lengths)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        with Command(Clips(Path(folder), lengths), "launcher=inline") as command:
            assert command.wait() == 0, command.output
        seconds = time.monotonic() - start
        (clips,) = Path(folder).glob("outputs/videos/*/clips")
        return {name: datasets_of(clips / f"{name}.h5") for name in lengths}, seconds


def _equal(left: object, right: object) -> bool:
    return bool(np.array_equal(np.asarray(left), np.asarray(right), equal_nan=np.asarray(left).dtype.kind == "f"))


def kill(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """SIGKILL at random moments: the command, a worker, a drawer, or several of them."""
    targets = [target for count in (1, 2, 3) for target in combinations(("worker", "drawer", "command"), count)]

    def inject(trial: Trial, command: Command) -> None:
        target = rng.choice(targets)
        processes = [trial.process(draws=name == "drawer") for name in target if name != "command"]
        running = [process for process in processes if process is not None]
        for process in running:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if "command" in target or not running:
            command.send_signal(signal.SIGKILL)
        command.wait()

    return _at_random_moments(folder, replace(size, has_overlays=True), rng, inject)


def terminate(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """SIGTERM, or Ctrl-C, at random moments."""

    def inject(trial: Trial, command: Command) -> None:
        command.send_signal(rng.choice([signal.SIGTERM, signal.SIGINT]))
        code = command.wait()
        if code == EXIT_INTERRUPTED:
            trial.outcome.message = command.output.strip().splitlines()[-1]
        elif code not in (0, -signal.SIGTERM, -signal.SIGINT):  # just finished, or before aot installed its handler
            trial.outcome.lost.append(f"the command exited with {code}: {command.output[-500:]}")

    return _at_random_moments(folder, size, rng, inject)


def _at_random_moments(
    folder: Path, size: Size, rng: random.Random, inject: Callable[[Trial, Command], None]
) -> Outcome:
    """Start a run, inject a fault, and start it again until no clip is left; then continue with another run.

    The moments are spread over the start of the command and the remaining clips. They are reached by the number of
    finished clips, because a duration depends on what else this machine computes. If the command has exited before its
    moment, nothing is injected or counted.
    """
    number, outcome = 0, Outcome()
    while outcome.injected < size.times:
        trial = Trial(folder / str(number := number + 1), size)
        trial.outcome = outcome
        while outcome.injected < size.times and (left := trial.num_left()):
            with trial.command(*trial.options) as command:
                trial.sleep_until(trial.num_finished(), rng.uniform(-1, left), command)
                if not command.is_running():
                    continue
                inject(trial, command)
            trial.record_fault()
        trial.finish()
    return outcome


def full_disk(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """The disk of the run folder is full; later it has space again."""
    outcome = Outcome()
    for number in range(size.times):
        # A run takes about 40 kB per clip, and 150 kB for the report.
        with mounted(folder / f"disk{number}", f"{rng.randrange(10, 50) * size.num_clips}k") as disk:
            trial = Trial(folder / str(number), size, root=disk / "outputs")
            trial.outcome = outcome
            with trial.command(*trial.options) as command:
                assert command.wait() != 0, "the disk was not full"
            outcome.message = line_with(command.output, "the disk is full", "free some space")
            trial.record_fault()
            remount(disk, "size=200m")
            trial.finish()
    return outcome


def read_only(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """The disk becomes read-only during the run; later it is writable again."""
    outcome = Outcome()
    for number in range(size.times):
        with mounted(folder / f"disk{number}", "200m") as disk:
            trial = Trial(folder / str(number), size, root=disk / "outputs")
            trial.outcome = outcome
            with trial.command("launcher.workers=1") as command:
                enough = rng.randrange(1, size.num_clips // 2)
                trial.wait_for_clips(enough, command)
                subprocess.run(["mount", "-o", "remount,ro,force", disk], check=False, stderr=subprocess.DEVNULL)
                with suppress(subprocess.CalledProcessError):  # refused while a file is open for writing
                    remount(disk, "ro")
                command.wait()
            trial.record_fault()
            with trial.command("launcher.workers=1") as command:
                command.wait()
            outcome.message = line_with(command.output, "read-only") or outcome.message
            remount(disk, "rw")
            trial.finish()
    return outcome


def twice(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """The same command, started twice at the same time."""
    outcome = Outcome()
    for number in range(size.times):
        trial = Trial(folder / str(number), size)
        trial.outcome = outcome
        with trial.command("launcher.workers=1") as one:
            time.sleep(rng.uniform(0, trial.seconds))
            with trial.command("launcher.workers=1") as other:
                assert (one.wait(), other.wait()) == (0, 0), one.output + other.output
        trial.record_fault()
        trial.finish()
    return outcome


def damage(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """Files lost, truncated, emptied, and with a bit flipped between two runs; `aot.verify --repair` finds them."""
    trial = Trial(folder, size)
    outcome = trial.outcome
    with trial.command(*trial.options) as command:
        assert command.wait() == 0
    for _ in range(size.times):
        damaged = rng.sample(sorted(trial.lengths), 4)
        for name in damaged:
            path = trial.result(name)
            data = bytearray(path.read_bytes())
            match rng.choice(["lose", "truncate", "empty", "flip"]):
                case "lose":
                    path.unlink()
                case "truncate":
                    path.write_bytes(data[: rng.randrange(1, len(data))])
                case "empty":
                    path.write_bytes(b"")
                case "flip":
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                    path.write_bytes(data)
        found = {finding.clip_id for finding in trial.findings()}
        outcome.lost += [f"aot.verify is wrong about {name}" for name in found ^ set(damaged)]
        assert verify([str(trial.root), "--repair"]) == EXIT_SOME_FAILED
        trial.record_fault()
        trial.finish(retry=False)
    return outcome


def hang_and_crash(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """Workers that hang in C with the GIL held, crash with a segmentation fault, or are stopped by SIGSTOP."""
    outcome = Outcome()
    for number in range(size.times):
        trial = Trial(folder / str(number), size)
        trial.outcome = outcome
        for name in rng.sample(sorted(trial.lengths), 2):
            trial.clips.inject(name, rng.choice(["hang", "segfault"]))
        with trial.command(*trial.options, "launcher.stall_seconds=4") as command:
            if rng.random() < 0.5:
                time.sleep(rng.uniform(1, 3))
                worker = trial.process(draws=rng.random() < 0.5)
                if worker is not None:
                    with suppress(ProcessLookupError):
                        os.kill(worker, signal.SIGSTOP)
            command.wait()
        trial.record_fault()
        trial.finish()
    return outcome


def io_errors(folder: Path, size: Size, rng: random.Random) -> Outcome:
    """Writes that fail with an input/output error several times, and slow writes."""
    outcome = Outcome()
    library = folder / "io_faults.so"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "io_faults.c", "-ldl"], check=True)
    for number in range(size.times):
        trial = Trial(folder / str(number), size)
        trial.outcome = outcome
        errors = folder / f"errors{number}"
        errors.write_bytes(bytes(num_errors := rng.randrange(1, 6)))
        environment = {
            "LD_PRELOAD": str(library), "IO_FAULTS_FOLDER": str(folder / str(number) / "outputs"),
            "IO_FAULTS_ERRORS": str(errors), "IO_FAULTS_MS": str(rng.choice([0, 5])),
        }  # fmt: skip
        with trial.command(*trial.options, "output.report=false", **environment) as command:
            command.wait()
        assert errors.stat().st_size < num_errors, "no write has failed"
        outcome.message = line_with(command.output, "Input/output error") or outcome.message
        trial.record_fault()
        trial.finish()
    return outcome


def line_with(text: str, *words: str) -> str:
    return next((line.strip() for line in text.splitlines() if any(word in line for word in words)), "")


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A small disk in memory (tmpfs)."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True, capture_output=True)


Fault = Callable[[Path, Size, random.Random], Outcome]
FAULTS: dict[str, Fault] = {
    "kill": kill, "terminate": terminate, "full_disk": full_disk, "read_only": read_only, "twice": twice,
    "damage": damage, "hang_and_crash": hang_and_crash, "io_errors": io_errors,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"one or more of {', '.join(FAULTS)}; default: all")
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--times", type=int, default=10, help="number of injections of every other fault")
    parser.add_argument("--clips", type=int, default=20, help="number of clips of each run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments and choices")
    options = parser.parse_args(arguments)
    lost = 0
    for name in options.faults or FAULTS:
        with tempfile.TemporaryDirectory(prefix="aot-campaign-") as folder:
            times = options.kills if name == "kill" else options.times
            outcome = FAULTS[name](Path(folder) / "trial", Size(times, options.clips), random.Random(options.seed))
        title = (FAULTS[name].__doc__ or "").strip()
        counts = f"{outcome.injected} | {outcome.survived} | {len(outcome.lost)}"
        print(f"| {title} | {counts} | {outcome.message} |", flush=True)
        for what in outcome.lost:
            print(f"  lost: {what}", flush=True)
        lost += len(outcome.lost) + outcome.injected - outcome.survived
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
