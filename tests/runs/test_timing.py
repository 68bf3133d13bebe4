"""Times of stages and of workers, from ledgers."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from aot.paths import RunPaths
from aot.runs.timing import describe_busy, draw_seconds, drawing_seconds, result_seconds, worker_times
from tests.launching.in_memory import summary_of

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Ledgers:
    """Ledgers of a run, with events at chosen times."""

    def __init__(self, root: Path) -> None:
        self.paths = RunPaths(root)

    def add(self, worker: str, at: float, event: str, clip_id: str = "a", **details: Any) -> None:
        path = self.paths.ledger(worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        moment = (START + timedelta(seconds=at)).isoformat()
        with path.open("a") as file:
            file.write(
                json.dumps({"event": event, "at": moment, "worker": worker, "clip_id": clip_id} | details) + "\n"
            )

    def compute(self, worker: str, start: float, end: float, **seconds: float) -> None:
        self.add(worker, start, "started", work="all")
        self.add(worker, end, "done", summary=summary_of(seconds=seconds))


@pytest.fixture
def run(tmp_path: Path) -> Ledgers:
    return Ledgers(tmp_path)


def test_busy_time_of_workers_and_of_the_run(run: Ledgers) -> None:
    run.compute("w0", 0, 10, open=1, segment=4, query_points=1, track=2, return_check=1, write=1)  # 8 of 10 s
    run.compute("w0", 15, 20, segment=2, track=2, decode=1)  # 12 of 20 s, with 5 s without a clip
    run.compute("w1", 5, 10, segment=1, wait_for_frames=3)  # 1 of 5 s
    times = worker_times(run.paths)
    assert {name: (time.seconds, time.computing_seconds, time.num_clips) for name, time in times.by_worker.items()} == {
        "w0": (20, 12, 2), "w1": (5, 1, 1),
    }  # fmt: skip
    assert [time.busy_fraction for time in times.by_worker.values()] == [0.6, 0.2]
    assert times.busy_fraction == 13 / 25
    assert describe_busy(times) == "the models computed in 52% of the time of 2 workers (60%, 20%)"


def test_time_after_the_last_result_counts(run: Ledgers) -> None:
    """Inline, a worker draws its clips itself; and failed attempts take time."""
    run.compute("w", 0, 10, track=5)
    run.add("w", 11, "started", work="overlay")
    run.add("w", 20, "ended", state="done", seconds={"overlay": 9.0})
    times = worker_times(run.paths)
    assert times.busy_fraction == 0.25
    assert describe_busy(times) == "the models computed in 25% of the time of 1 worker"


def test_drawers_and_workers_without_a_result_have_no_time(run: Ledgers) -> None:
    run.add("w-draw0", 0, "started", work="overlay")
    run.add("w-draw0", 50, "ended", state="done", seconds={"overlay": 9.0})
    run.add("w1", 0, "started", work="all")
    run.add("w1", 50, "ended", state="failed")
    times = worker_times(run.paths)
    assert (times.by_worker, times.busy_fraction) == ({}, None)


def test_interruption_that_is_recorded_later_takes_no_time(run: Ledgers) -> None:
    """`aot.cancel` is followed by a command that records it, perhaps on the next day."""
    run.compute("w", 0, 10, track=5)
    run.add("w", 12, "started", "b", work="all")
    run.add("w", 90_000, "interrupted", "b")
    assert worker_times(run.paths).by_worker["w"].seconds == 10


def test_damaged_lines_are_skipped(run: Ledgers) -> None:
    path = run.paths.ledger("w")
    path.parent.mkdir(parents=True)
    path.write_text('{"event": "sta\n')
    run.compute("w", 0, 10, track=5)
    with path.open("a") as file:
        file.write('{"event": "done", "at"')
    assert worker_times(run.paths).busy_fraction == 0.5


def test_many_workers_are_not_listed(run: Ledgers) -> None:
    for number in range(9):
        run.compute(f"w{number}", 0, 10, track=5)
    assert describe_busy(worker_times(run.paths)) == "the models computed in 50% of the time of 9 workers"


def test_run_without_ledgers_has_no_times(run: Ledgers) -> None:
    assert worker_times(run.paths).busy_fraction is None


def test_latest_time_of_each_drawing_counts(run: Ledgers) -> None:
    """A changed style draws the overlay again, and nothing else."""
    run.add("w", 20, "ended", state="done", seconds={"score": 1.0, "overlay": 2.0})
    run.add("v", 30, "ended", state="done", seconds={"overlay": 3.0, "report": 4.0})
    run.add("w", 25, "ended", "b", state="done", seconds={"overlay": 5.0})
    run.add("w", 40, "ended", "c", state="failed")
    done = dict.fromkeys("abc", START.isoformat())
    assert drawing_seconds(run.paths, done) == {
        "a": {"score": 1.0, "overlay": 3.0, "report": 4.0},
        "b": {"overlay": 5.0},
    }


def test_drawings_of_an_earlier_result_do_not_count(run: Ledgers) -> None:
    run.add("w", 20, "ended", state="done", seconds={"score": 1.0, "overlay": 2.0})
    run.add("w", 30, "ended", state="done", seconds={"overlay": 3.0})
    done = {"a": (START + timedelta(seconds=25)).isoformat()}
    assert drawing_seconds(run.paths, done) == {"a": {"overlay": 3.0}}


def test_sums_of_stages() -> None:
    seconds = {"open": 1.0, "segment": 2.0, "decode": 4.0, "overlay": 8.0, "score": 16.0}
    assert (result_seconds(seconds), draw_seconds(seconds)) == (7.0, 24.0)
