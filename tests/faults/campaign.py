"""Break runs on purpose, and count what is lost.

    python -m tests.faults.campaign [--kills 200] [--times 10] [FAULT …]

Every fault falls on runs over 20 clips. After each, all that has its final name must be whole and the same, bit for
bit, as in a run that nothing happened to; in the end the same command must finish the rest. The disks are real (tmpfs,
which takes root), failing and slow writes are made by a library of ours (shaky.c) between the command and the system.
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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aot.paths import RunPaths
from aot.runs.ledger import read_events
from aot.system.cli import EXIT_INTERRUPTED
from aot.system.processes import is_alive
from aot.verify import EXIT_NOT_WHOLE, Finding, State, verify_run
from aot.verify import main as verify
from tests.faults.commands import Command
from tests.launching.clips import Clips, datasets_of

NUM_CLIPS = 20
LENGTHS = {f"day{number % 3}/c{number:02}": 20 + number for number in range(NUM_CLIPS)}
HERE = Path(__file__).parent


@dataclass
class Outcome:
    """What came of one kind of fault."""

    tried: int = 0
    """Faults."""
    survived: int = 0
    """Faults after which everything that had its name was whole and right."""
    lost: list[str] = field(default_factory=list)
    """Clips that the same command did not make whole in the end, or made other than they are."""
    said: str = ""
    """The message of the command, where there was somebody to tell."""


class Trial:
    """Clips, what they give when nothing happens, and the run folder that things happen to."""

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        self.clips = Clips(folder, LENGTHS)
        self._root = f"output.root={root or folder / 'outputs'}"
        self._place = root or folder / "outputs"
        self.outcome = Outcome()
        self._expected = undisturbed()[0]

    def command(self, *arguments: str, **environment: str) -> Command:
        return Command(self.clips, self._root, *arguments, environment=environment)

    @property
    def root(self) -> Path:
        (path,) = (self._place / "videos").iterdir()
        return path

    def result(self, clip_id: str) -> Path:
        return self.root / "clips" / f"{clip_id}.h5"

    def child(self) -> int | None:
        """A worker process that lives, if one has begun a clip."""
        if not any(self._place.glob("videos/*/ledger")):
            return None
        pids = [event["pid"] for event in read_events(RunPaths(self.root), ["started"])]
        return next((pid for pid in reversed(pids) if is_alive(pid)), None)

    def struck(self) -> None:
        """A fault has fallen: what has its name must be whole."""
        self.outcome.tried += 1
        self.outcome.survived += not self.wrong()

    def wrong(self) -> list[str]:
        return [name for name in LENGTHS if self.exists(name) and not self.is_right(name)]

    def exists(self, name: str) -> bool:
        return any(self._place.glob(f"videos/*/clips/{name}.h5"))

    def is_right(self, name: str) -> bool:
        try:
            found = datasets_of(self.result(name))
        except (OSError, KeyError, RuntimeError):
            return False
        expected = self._expected[name]
        return found.keys() == expected.keys() and all(_same(found[key], expected[key]) for key in expected)

    def finish(self, *, retry: bool = True) -> None:
        """The same command again, which must make all whole; clips that failed by the fault are asked for besides."""
        with self.command("launcher.workers=2", *(["retry=[all]"] if retry else [])) as command:
            code = command.ends()
        if code:
            print(command.output)
            self.outcome.lost.append(f"the command ended with {code}")
        self.outcome.lost += [name for name in LENGTHS if not self.exists(name) or not self.is_right(name)]
        self.outcome.lost += [f"half a file: {path}" for path in self.root.rglob("*.part")]
        self.outcome.lost += [f"aot.verify: {finding}" for finding in self.not_whole()]

    def not_whole(self) -> list[Finding]:
        """What `aot.verify` finds fault with."""
        return [finding for finding in verify_run(RunPaths(self.root)) if finding.state is not State.WHOLE]


@cache
def undisturbed() -> tuple[dict[str, dict[str, Any]], float]:
    """The datasets of every clip of a run that nothing happens to, and how many seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        with Command(Clips(Path(folder), LENGTHS), "launcher=inline") as command:
            assert command.ends() == 0, command.output
        seconds = time.monotonic() - begun
        (clips,) = Path(folder).glob("outputs/videos/*/clips")
        return {name: datasets_of(clips / f"{name}.h5") for name in LENGTHS}, seconds


def _same(left: object, right: object) -> bool:
    return bool(np.array_equal(np.asarray(left), np.asarray(right), equal_nan=np.asarray(left).dtype.kind == "f"))


def kill(folder: Path, times: int, rng: random.Random) -> Outcome:
    """SIGKILL at random moments: the command, a worker, or both."""

    def strike(trial: Trial, command: Command) -> None:
        whom = rng.choice(["command", "worker", "both"])
        child = trial.child() if whom != "command" else None
        if child is not None:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if whom != "worker" or child is None:
            command.send(signal.SIGKILL)
        command.ends()

    return _at_random_moments(folder, times, rng, strike)


def terminate(folder: Path, times: int, rng: random.Random) -> Outcome:
    """SIGTERM, or Ctrl-C, at random moments."""

    def strike(trial: Trial, command: Command) -> None:
        command.send(rng.choice([signal.SIGTERM, signal.SIGINT]))
        code = command.ends()
        if code == EXIT_INTERRUPTED:
            trial.outcome.said = command.output.strip().splitlines()[-1]
        elif code not in (0, -signal.SIGTERM, -signal.SIGINT):  # just finished, or hit before aot listened
            trial.outcome.lost.append(f"the command ended with {code}: {command.output[-500:]}")

    return _at_random_moments(folder, times, rng, strike)


def _at_random_moments(
    folder: Path, times: int, rng: random.Random, strike: Callable[[Trial, Command], None]
) -> Outcome:
    """Start a run, let something happen to it, start it again, until its clips are whole; then another run.

    Moments lie anywhere in what is left of a run, by the time that one takes on this machine. One that comes after the
    command's end is none: nothing is struck, and nothing counted.
    """
    _, seconds = undisturbed()
    number, outcome = 0, Outcome()
    while outcome.tried < times:
        trial = Trial(folder / str(number := number + 1))
        trial.outcome = outcome
        while outcome.tried < times and (left := NUM_CLIPS - sum(map(trial.exists, LENGTHS))):
            with trial.command("launcher.workers=2") as command:
                time.sleep(rng.uniform(0.2, 1.0 + seconds * left / NUM_CLIPS))
                if not command.is_running():
                    continue
                strike(trial, command)
            trial.struck()
        trial.finish()
    return outcome


def full_disk(folder: Path, times: int, rng: random.Random) -> Outcome:
    """No room on the disk of the run folder; later there is."""
    outcome = Outcome()
    for number in range(times):
        with mounted(folder / f"disk{number}", f"{rng.randrange(200, 1000)}k") as disk:
            trial = Trial(folder / str(number), root=disk / "outputs")
            trial.outcome = outcome
            with trial.command("launcher.workers=2") as command:
                assert command.ends() != 0, "the disk was not full"
            outcome.said = line_with(command.output, "No space left", "has free space")
            trial.struck()
            remount(disk, "size=200m")
            trial.finish()
    return outcome


def read_only(folder: Path, times: int, rng: random.Random) -> Outcome:
    """The disk turns read-only in the middle; later it can be written again."""
    outcome = Outcome()
    for number in range(times):
        with mounted(folder / f"disk{number}", "200m") as disk:
            trial = Trial(folder / str(number), root=disk / "outputs")
            trial.outcome = outcome
            with trial.command("launcher.workers=1") as command:
                enough = rng.randrange(1, 10)
                while command.is_running() and sum(map(trial.exists, LENGTHS)) < enough:
                    time.sleep(0.02)
                subprocess.run(["mount", "-o", "remount,ro,force", disk], check=False, stderr=subprocess.DEVNULL)
                with suppress(subprocess.CalledProcessError):  # a file that is being written keeps it writable
                    remount(disk, "ro")
                command.ends()
            trial.struck()
            with trial.command("launcher.workers=1") as command:
                command.ends()
            outcome.said = line_with(command.output, "Read-only") or outcome.said
            remount(disk, "rw")
            trial.finish()
    return outcome


def twice(folder: Path, times: int, rng: random.Random) -> Outcome:
    """The same command, started twice at once."""
    outcome = Outcome()
    for number in range(times):
        trial = Trial(folder / str(number))
        trial.outcome = outcome
        with trial.command("launcher.workers=1") as one:
            time.sleep(rng.uniform(0, 2))
            with trial.command("launcher.workers=1") as other:
                assert (one.ends(), other.ends()) == (0, 0), one.output + other.output
        trial.struck()
        trial.finish()
    return outcome


def damage(folder: Path, times: int, rng: random.Random) -> Outcome:
    """Files lost, cut, emptied, and with a byte changed between two runs; `aot.verify --repair` finds them."""
    trial = Trial(folder)
    outcome = trial.outcome
    with trial.command("launcher.workers=2") as command:
        assert command.ends() == 0
    for _ in range(times):
        damaged = rng.sample(sorted(LENGTHS), 4)
        for name in damaged:
            path = trial.result(name)
            data = bytearray(path.read_bytes())
            match rng.choice(["lose", "cut", "empty", "change"]):
                case "lose":
                    path.unlink()
                case "cut":
                    path.write_bytes(data[: rng.randrange(1, len(data))])
                case "empty":
                    path.write_bytes(b"")
                case "change":
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                    path.write_bytes(data)
        found = {finding.clip_id for finding in trial.not_whole()}
        outcome.lost += [f"aot.verify is wrong about {name}" for name in found ^ set(damaged)]
        assert verify([str(trial.root), "--repair"]) == EXIT_NOT_WHOLE
        trial.struck()
        trial.finish(retry=False)
    return outcome


def hang_and_crash(folder: Path, times: int, rng: random.Random) -> Outcome:
    """Workers that stand still in C with the interpreter's lock, die of a bad address, are stopped by a signal."""
    outcome = Outcome()
    for number in range(times):
        trial = Trial(folder / str(number))
        trial.outcome = outcome
        for name in rng.sample(sorted(LENGTHS), 2):
            trial.clips.happens(name, rng.choice(["hang", "segfault"]))
        with trial.command("launcher.workers=2", "launcher.stall_seconds=4") as command:
            if rng.random() < 0.5:
                time.sleep(rng.uniform(1, 3))
                child = trial.child()
                if child is not None:
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGSTOP)
            command.ends()
        trial.struck()
        trial.finish()
    return outcome


def shaky_disk(folder: Path, times: int, rng: random.Random) -> Outcome:
    """Writes that fail with an input/output error for a while, and slow ones."""
    outcome = Outcome()
    library = folder / "shaky.so"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "shaky.c", "-ldl"], check=True)
    for number in range(times):
        trial = Trial(folder / str(number))
        trial.outcome = outcome
        errors = folder / f"errors{number}"
        errors.write_bytes(bytes(num_errors := rng.randrange(1, 6)))
        environment = {
            "LD_PRELOAD": str(library), "SHAKY_FOLDER": str(folder / str(number) / "outputs"),
            "SHAKY_ERRORS": str(errors), "SHAKY_MS": str(rng.choice([0, 5])),
        }  # fmt: skip
        with trial.command("launcher.workers=2", "output.report=false", **environment) as command:
            command.ends()
        assert errors.stat().st_size < num_errors, "no write has failed"
        outcome.said = line_with(command.output, "Input/output error") or outcome.said
        trial.struck()
        trial.finish()
    return outcome


def line_with(text: str, *words: str) -> str:
    return next((line.strip() for line in text.splitlines() if any(word in line for word in words)), "")


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A disk of our own in memory."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True, capture_output=True)


Fault = Callable[[Path, int, random.Random], Outcome]
FAULTS: dict[str, Fault] = {
    "kill": kill, "terminate": terminate, "full_disk": full_disk, "read_only": read_only, "twice": twice,
    "damage": damage, "hang_and_crash": hang_and_crash, "shaky_disk": shaky_disk,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)}; none means all")
    parser.add_argument("--kills", type=int, default=200, help="moments at which to kill")
    parser.add_argument("--times", type=int, default=10, help="of each other fault")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    given = parser.parse_args(arguments)
    lost = 0
    for name in given.faults or FAULTS:
        with tempfile.TemporaryDirectory(prefix="aot-campaign-") as folder:
            times = given.kills if name == "kill" else given.times
            outcome = FAULTS[name](Path(folder) / "trial", times, random.Random(given.seed))
        about = (FAULTS[name].__doc__ or "").strip()
        print(f"| {about} | {outcome.tried} | {outcome.survived} | {len(outcome.lost)} | {outcome.said} |", flush=True)
        for what in outcome.lost:
            print(f"  lost: {what}", flush=True)
        lost += len(outcome.lost) + outcome.tried - outcome.survived
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
