"""Attempts at a clip, counted from ledgers that a crash may have cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from aot.paths import RunPaths
from aot.runs.history import close_cancelled, history_so_far, read_history
from aot.runs.ledger import SILENT_SECONDS, Ledger, LedgerTail, last_computed, last_done, read_events
from aot.runs.quarantine import may_be_replaced

DIGESTS = {"a": "123"}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    paths = RunPaths(tmp_path)
    paths.run_json.touch()
    return paths


@pytest.fixture
def dead_pid() -> int:
    """The id of a process that has exited."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def begin(
    paths: RunPaths, worker: str = "w", *, rung: int = 1, content: str = "123", work: str = "all", **details: Any
) -> Ledger:
    ledger = Ledger(paths, worker)
    settings = {"rung": rung, "frame_interval": 1, "lean": rung > 1}
    ledger.append("started", clip_id="a", content=content, work=work, **settings, **details)
    return ledger


def tried(paths: RunPaths, **options: Any) -> list[tuple[int, str | None]]:
    found = history_so_far(paths, DIGESTS, **options).series.get("a", ())
    return [(attempt.rung.number, attempt.kind) for attempt in found]


def test_attempts_count_until_the_clip_ends(paths: RunPaths) -> None:
    assert tried(paths) == []
    begin(paths).append("attempt failed", clip_id="a", **{"class": "oom", "error": "no more"})
    begin(paths, rung=2).append("died", clip_id="a", **{"class": "lost", "error": "killed"})
    assert tried(paths) == [(1, "oom"), (2, "lost")]
    begin(paths, rung=2).append("done", clip_id="a", content={}, summary={})
    assert tried(paths) == []
    begin(paths).append("attempt failed", clip_id="a", **{"class": "decode", "error": "broken"})
    Ledger(paths, "w").append("ended", clip_id="a", state="failed")
    assert tried(paths) == []


def test_attempts_at_drawing_do_not_count(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, work="overlay").append("died", clip_id="a", **{"class": "lost", "error": "killed"})
    begin(paths, "x", work="overlay", pid=dead_pid)
    assert tried(paths) == []
    assert [event["worker"] for event in read_history(paths, DIGESTS).open] == ["x"], "it can be cancelled"


def read_ahead(paths: RunPaths, worker: str = "w") -> Ledger:
    ledger = Ledger(paths, worker)
    settings = {"content": "123", "work": "all", "rung": 1, "frame_interval": 1, "lean": False}
    ledger.append("reading ahead", clip_id="a", **settings)
    return ledger


def test_reading_ahead_counts_only_if_the_process_died_of_it(paths: RunPaths) -> None:
    read_ahead(paths).append("read ahead", clip_id="a")
    read_ahead(paths, "x")  # its process has died, and another clip was charged, or none
    assert tried(paths) == []
    assert read_history(paths, DIGESTS).open == []
    assert read_history(paths, DIGESTS).computed == {}
    ledger = read_ahead(paths)
    ledger.append("read ahead", clip_id="a", error="killed")
    ledger.append("died", clip_id="a", **{"class": "crash", "error": "killed"})
    assert tried(paths) == [(1, "crash")]


def test_attempt_after_reading_ahead_is_one_attempt(paths: RunPaths, dead_pid: int) -> None:
    read_ahead(paths).append("read ahead", clip_id="a")
    begin(paths, pid=dead_pid)
    assert tried(paths) == [(1, "lost")]
    begin(paths).append("died", clip_id="a", **{"class": "lost", "error": "killed"})
    assert tried(paths) == [(1, "lost")]
    read_ahead(paths)
    begin(paths).append("done", clip_id="a", content={}, summary={})
    assert tried(paths) == []


def test_scores_and_checksum_are_those_of_the_latest_result(paths: RunPaths) -> None:
    def known() -> tuple[str | None, dict[str, float] | None]:
        done = last_done(paths, "file_sha256", "scores")["a"]
        return done["file_sha256"], done["scores"]

    worker, drawer = Ledger(paths, "w"), Ledger(paths, "draw0")
    worker.append("done", clip_id="a", file_sha256="of 0.1", scores={"J": 0.1})
    assert known() == ("of 0.1", {"J": 0.1}), "version 0.1 recorded both with the result"
    worker.append("done", clip_id="a")
    assert known() == (None, None)
    drawer.append("scored", clip_id="a", file_sha256="1", scores={"J": 0.5})
    at = last_done(paths, "file_sha256")["a"]["at"]
    assert known() == ("1", {"J": 0.5})
    assert at == last_done(paths)["a"]["at"], "the time is that of the result"
    worker.append("done", clip_id="a")
    assert known() == (None, None), "of a result that has been replaced"


def test_start_of_a_drawing_does_not_hide_that_of_a_computation(paths: RunPaths) -> None:
    """The file may have been replaced by the computation, so that what is known of it must not be used."""
    worker = begin(paths)
    worker.append("done", clip_id="a")
    assert not may_be_replaced(last_done(paths)["a"], last_computed(paths).get("a"))
    begin(paths, "draw0", work="overlay")
    assert not may_be_replaced(last_done(paths)["a"], last_computed(paths).get("a"))
    begin(paths, "other")
    begin(paths, "draw0", work="overlay")
    assert may_be_replaced(last_done(paths)["a"], last_computed(paths).get("a"))


def test_attempts_before_a_requested_retry_do_not_count(paths: RunPaths, dead_pid: int) -> None:
    begin(paths).append("attempt failed", clip_id="a", **{"class": "oom", "error": "no more"})
    begin(paths, "other", rung=2, pid=dead_pid)
    assert tried(paths) == [(1, "oom"), (2, "lost")]
    Ledger(paths, "command").append("retry requested", clip_id="a")
    assert tried(paths) == []
    begin(paths, "other", pid=dead_pid)
    assert tried(paths) == [(1, "lost")]
    Ledger(paths, "other").append("died", clip_id="a", **{"class": "crash", "error": "killed"})
    assert tried(paths) == [(1, "crash")]


def test_events_are_ordered_by_what_was_known_not_by_the_clocks_of_the_machines(paths: RunPaths) -> None:
    """The clock of the first worker is an hour ahead, and that of the others is right."""
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    early = Ledger(paths, "early")
    early.follow(ahead.isoformat())
    settings = {"content": "123", "work": "all", "rung": 1, "frame_interval": 1, "lean": False}
    early.append("started", clip_id="a", **settings)
    early.append("died", clip_id="a", **{"class": "oom", "error": ""})
    assert tried(paths) == [(1, "oom")]
    command = Ledger(paths, "command")
    command.follow(history_so_far(paths, DIGESTS).latest["a"])
    command.append("retry requested", clip_id="a")
    assert tried(paths) == []
    late = Ledger(paths, "late")
    late.follow(command.latest)
    late.append("started", clip_id="a", **settings)
    late.append("done", clip_id="a", content={}, file_sha256="late")
    assert last_done(paths, "file_sha256")["a"]["file_sha256"] == "late"
    at = [event["at"] for event in read_events(paths)]
    assert at == sorted(set(at))
    assert datetime.fromisoformat(at[-1]) - ahead < timedelta(seconds=1)


def test_events_of_one_ledger_stay_in_order_when_the_clock_is_set_back(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        hour_of_day = 12

        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, cls.hour_of_day, tzinfo=tz)

    monkeypatch.setattr("aot.runs.ledger.datetime", Clock)
    ledger = begin(paths)
    Clock.hour_of_day = 11
    ledger.append("died", clip_id="a", **{"class": "oom", "error": ""})
    assert tried(paths) == [(1, "oom")]


def test_open_attempt_is_lost_when_its_process_is_dead(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, pid=os.getpid())
    assert tried(paths) == [], "its process is running"
    begin(paths, "x", pid=dead_pid)
    assert tried(paths) == [(1, "lost")]


def test_open_attempt_on_another_machine_is_lost_when_its_ledger_is_old(paths: RunPaths) -> None:
    begin(paths, host="elsewhere")
    assert tried(paths) == [], "its ledger was just written"
    old = paths.ledger("w").stat().st_mtime - SILENT_SECONDS - 1
    os.utime(paths.ledger("w"), (old, old))
    assert tried(paths) == [(1, "lost")]
    Ledger(paths, "w").touch()
    assert tried(paths) == []


def test_requeued_task_counts_its_own_open_attempt(paths: RunPaths) -> None:
    begin(paths, host="elsewhere", task="7_1")
    assert tried(paths, scheduler_task="7_2") == []
    assert tried(paths, scheduler_task="7_1") == [(1, "lost")]


@pytest.mark.parametrize(("is_counted", "found"), [(True, [(1, "lost")]), (False, [])])
def test_interrupted_attempt_counts_only_if_marked(
    paths: RunPaths, is_counted: bool, found: list[tuple[int, str | None]]
) -> None:
    begin(paths).append("interrupted", clip_id="a", reason="time limit", is_counted=is_counted)
    assert tried(paths) == found


def test_attempts_with_another_fingerprint_are_ignored(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, content="old").append("attempt failed", clip_id="a", **{"class": "oom", "error": ""})
    begin(paths, "x", content="old", pid=dead_pid)
    assert tried(paths) == []


def test_cancelled_attempts_do_not_count(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, "x", task="7_1", pid=dead_pid)
    begin(paths, "y", task="7_2", pid=dead_pid)
    close_cancelled(paths, read_history(paths, DIGESTS), {"7_1"})
    assert tried(paths) == [(1, "lost")], "only the attempt of the other task counts"


def test_event_ends_only_the_attempt_of_its_worker(paths: RunPaths) -> None:
    begin(paths, "x")
    begin(paths, "y").append("attempt failed", clip_id="a", **{"class": "oom", "error": ""})
    assert [event["worker"] for event in read_history(paths, DIGESTS).open] == ["x"]


def test_incomplete_line_is_returned_once_complete(paths: RunPaths) -> None:
    begin(paths)
    path, line = paths.ledger("w"), paths.ledger("w").read_bytes()
    tail = LedgerTail(paths)
    path.write_bytes(line + line[:40])
    assert len(list(read_events(paths))) == 1
    assert len(tail.new_events()) == 1
    path.write_bytes(line + line)
    assert len(tail.new_events()) == 1
    assert tail.new_events() == []
    assert last_done(paths) == {}


def test_every_event_records_worker_host_gpu_and_task(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    received: list[dict[str, Any]] = []
    Ledger(paths, "w", scheduler_task="7_1", on_event=received.append).append("started", clip_id="a")
    (event,) = read_events(paths)
    assert received == [event]
    origin = {key: event[key] for key in ("worker", "host", "pid", "gpu", "task")}
    assert origin == {"worker": "w", "host": "node7", "pid": os.getpid(), "gpu": "3", "task": "7_1"}


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)


def test_events_of_two_threads_have_ascending_times_in_the_order_of_their_lines(paths: RunPaths) -> None:
    """One thread of a worker computes, another reads ahead."""
    received: list[str] = []
    ledger = Ledger(paths, "w", on_event=lambda event: received.append(event["at"]))

    def append(clip_id: str) -> None:
        for _ in range(200):
            ledger.append("started", clip_id=clip_id)

    threads = [threading.Thread(target=append, args=(clip_id,)) for clip_id in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [json.loads(line)["at"] for line in paths.ledger("w").read_text().splitlines()]
    assert len(set(times)) == 400
    assert times == sorted(times) == received
