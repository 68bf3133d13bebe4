"""Whether workers are alive, and which of their part files are deleted: the clocks of machines may differ by hours."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aot.paths import RunPaths
from aot.runs.history import is_running
from aot.runs.ledger import SILENT_SECONDS, TOUCH_SECONDS, Ledger
from aot.runs.liveness import LedgerWatch
from aot.runs.parts import PartSweeper
from aot.status import StatusReader
from aot.system.processes import host
from tests.launching.in_memory import MemoryRun

HOUR = 3600.0
SKEWS = pytest.mark.parametrize("skew", [0.0, HOUR, -HOUR])


class Machine:
    """A worker on another machine, whose clock, and so the stamps of its ledger, is `skew` s ahead."""

    def __init__(self, paths: RunPaths, name: str, pid: int, skew: float = 0.0) -> None:
        self.paths, self.name, self.pid, self.skew = paths, name, pid, skew
        Ledger(paths, name).append("started", clip_id=name, host="elsewhere", pid=pid, rung=1, frame_interval=1)
        self.num_touches = 0
        self.touch()

    def touch(self) -> None:
        self.num_touches += 1
        at = time.time() + self.skew + self.num_touches
        os.utime(self.paths.ledger(self.name), (at, at))

    def write_part(self) -> Path:
        part = self.paths.results / "day 1" / f".elsewhere-{self.pid}-abc.h5.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        return part


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path)
    paths.run_json.touch()
    return paths


@SKEWS
def test_worker_is_alive_while_its_ledger_changes(paths: RunPaths, skew: float) -> None:
    clock = Time()
    living = Machine(paths, "living", 7, skew)
    Machine(paths, "dead", 8, skew)
    watch = LedgerWatch(paths, clock)
    watch.look()
    assert (watch.is_silent("living"), watch.is_silent("dead")) == (None, None), "it cannot be known yet"
    for _ in range(10):
        clock.now += TOUCH_SECONDS
        living.touch()
        watch.look()
    assert (watch.is_silent("living"), watch.is_silent("dead"), watch.is_silent("unknown")) == (False, True, None)
    clock.now += SILENT_SECONDS
    watch.look()
    assert watch.is_silent("living")


def test_ledgers_are_looked_at_no_more_often_than_they_are_touched(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = Time(), []
    monkeypatch.setattr("aot.runs.liveness.ledger_states", lambda paths: looks.append(clock.now) or {})
    watch = LedgerWatch(paths, clock)
    for _ in range(31):
        watch.look()
        clock.now += 1
    assert looks == [1000, 1015, 1030]
    watch.look(now=True)
    assert looks[-1] == 1031


@SKEWS
def test_only_part_files_of_silent_workers_of_other_machines_are_deleted(paths: RunPaths, skew: float) -> None:
    clock = Time()
    living, dead = Machine(paths, "living", 7, skew), Machine(paths, "dead", 8, skew)
    kept, deleted = living.write_part(), dead.write_part()
    unknown = paths.results / ".elsewhere-9-abc.h5.part"
    unknown.touch()
    sweeper = PartSweeper(paths, clock)
    assert sweeper.sweep() == 0
    for _ in range(6):
        clock.now += TOUCH_SECONDS
        living.touch()
        sweeper.watch()
    assert sweeper.sweep() == 1
    assert (kept.exists(), deleted.exists(), unknown.exists()) == (True, False, True)


def test_part_files_of_a_process_that_was_several_workers_need_all_of_them_silent(paths: RunPaths) -> None:
    clock = Time()
    first, second = Machine(paths, "first", 7), Machine(paths, "second", 7)
    part = first.write_part()
    sweeper = PartSweeper(paths, clock)
    clock.now += SILENT_SECONDS
    second.touch()
    assert sweeper.sweep() == 0
    clock.now += SILENT_SECONDS
    assert sweeper.sweep() == 1
    assert not part.exists()


def test_part_files_of_dead_processes_of_this_machine_are_deleted_at_once(paths: RunPaths) -> None:
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    folder = paths.results / "day1"
    folder.mkdir(parents=True)
    dead, living = folder / f".{host()}-{finished.pid}-x.h5.part", folder / f".{host()}-{os.getpid()}-x.h5.part"
    elsewhere = [folder / f".{host()}{more}-{os.getpid()}-x.h5.part" for more in ("2", f"-{finished.pid}")]
    for path in (dead, living, *elsewhere):
        path.touch()
    assert PartSweeper(paths).sweep() == 1
    assert not dead.exists()
    assert all(path.exists() for path in (living, *elsewhere))


def test_part_files_of_other_machines_are_deleted_after_a_day_without_a_sign_of_life(paths: RunPaths) -> None:
    day = 24 * HOUR
    paths.results.mkdir()
    for name, seconds in {"old": day + 60, "older": 9 * day, "new": day - 60}.items():
        part = paths.results / f".elsewhere-7-{name}.h5.part"
        part.touch()
        os.utime(part, (time.time() - seconds,) * 2)
    worker = Machine(paths, "living", 7)
    assert PartSweeper(paths).sweep() == 0, "it does not write to its file, but its ledger is touched"
    os.utime(paths.ledger("living"), (time.time() - day - 60,) * 2)
    assert PartSweeper(paths).sweep() == 2
    assert [path.name for path in paths.results.iterdir()] == [".elsewhere-7-new.h5.part"]
    assert worker.num_touches == 1


@SKEWS
def test_a_look_at_a_ledger_is_a_guess_that_watching_it_corrects(paths: RunPaths, skew: float) -> None:
    clock = Time()
    worker = Machine(paths, "w", 7, skew)
    started = {"host": "elsewhere", "pid": 7, "worker": "w"}
    watch = LedgerWatch(paths, clock)
    watch.look()
    assert is_running(paths, started, watch) == is_running(paths, started) == (skew == 0.0)
    clock.now += TOUCH_SECONDS
    worker.touch()
    watch.look()
    assert is_running(paths, started, watch), "it was seen to change"
    clock.now += SILENT_SECONDS
    watch.look()
    assert not is_running(paths, started, watch), "whatever its time stamp is"


@SKEWS
def test_status_of_a_worker_whose_clock_differs(tmp_path: Path, skew: float) -> None:
    clock = Time()
    run = MemoryRun(tmp_path, {"a": 10})
    run.plan().write(with_sizes=False)
    worker = Machine(run.paths, "a", 7, skew)
    reader = StatusReader(run.paths, clock)
    assert reader.read().counts["running"] == (skew == 0.0)
    worker.touch()
    clock.now += TOUCH_SECONDS
    (running,) = reader.read().running
    assert running.silent_seconds >= 0
    clock.now += SILENT_SECONDS
    status = reader.read()
    assert (status.running, status.summary) == ([], "no worker is running; run the same command again to resume")
