"""What has been tried for a clip, told from ledgers that anything may have cut short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aot.paths import RunPaths
from aot.runs.history import attempts_so_far, close_cancelled, read_history
from aot.runs.ledger import SILENT_SECONDS, Ledger, LedgerTail, last_done, read_events

CONTENTS = {"a": "123"}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


@pytest.fixture
def dead_pid() -> int:
    """Of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def begin(paths: RunPaths, worker: str = "w", *, rung: int = 1, content: str = "123", **details: Any) -> Ledger:
    ledger = Ledger(paths.ledger(worker))
    settings = {"rung": rung, "frame_interval": 1, "lean": rung > 1}
    ledger.append("started", clip_id="a", content=content, work="all", **settings, **details)
    return ledger


def tried(paths: RunPaths, **options: Any) -> list[tuple[int, str | None]]:
    found = attempts_so_far(paths, CONTENTS, **options).get("a", ())
    return [(attempt.rung.number, attempt.kind) for attempt in found]


def test_attempts_add_up_until_the_clip_has_ended(paths: RunPaths) -> None:
    assert tried(paths) == []
    begin(paths).append("attempt failed", clip_id="a", **{"class": "oom", "error": "no more"})
    begin(paths, rung=2).append("died", clip_id="a", **{"class": "lost", "error": "killed"})
    assert tried(paths) == [(1, "oom"), (2, "lost")]
    begin(paths, rung=2).append("done", clip_id="a", content={}, summary={})
    assert tried(paths) == []
    begin(paths).append("attempt failed", clip_id="a", **{"class": "decode", "error": "broken"})
    Ledger(paths.ledger("w")).append("ended", clip_id="a", state="failed")
    assert tried(paths) == []


def test_what_is_to_be_forgotten_counts_no_more(paths: RunPaths, dead_pid: int) -> None:
    begin(paths).append("attempt failed", clip_id="a", **{"class": "write", "error": "no room"})
    begin(paths, rung=2).append("attempt failed", clip_id="a", **{"class": "oom", "error": "no more"})
    begin(paths, "x", pid=dead_pid)
    assert tried(paths) == [(1, "write"), (2, "oom"), (1, "lost")]
    assert tried(paths, is_forgotten=lambda clip_id, kind, at: kind == "write") == [(2, "oom"), (1, "lost")]
    assert tried(paths, is_forgotten=lambda clip_id, kind, at: clip_id == "a" and at < "9") == []


def test_an_attempt_without_an_end_is_lost_with_its_process(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, pid=os.getpid())
    assert tried(paths) == [], "it is running"
    begin(paths, "x", pid=dead_pid)
    assert tried(paths) == [(1, "lost")]


def test_of_other_machines_the_ledgers_age_tells(paths: RunPaths) -> None:
    begin(paths, host="elsewhere")
    assert tried(paths) == [], "it has been written a moment ago"
    old = paths.ledger("w").stat().st_mtime - SILENT_SECONDS - 1
    os.utime(paths.ledger("w"), (old, old))
    assert tried(paths) == [(1, "lost")]
    Ledger(paths.ledger("w")).touch()
    assert tried(paths) == []


def test_a_requeued_task_counts_what_it_left_open(paths: RunPaths) -> None:
    begin(paths, host="elsewhere", task="7_1")
    assert tried(paths, task="7_2") == []
    assert tried(paths, task="7_1") == [(1, "lost")]


@pytest.mark.parametrize(("is_counted", "found"), [(True, [(1, "lost")]), (False, [])])
def test_what_is_given_up_counts_when_the_clip_may_be_why(
    paths: RunPaths, is_counted: bool, found: list[tuple[int, str | None]]
) -> None:
    begin(paths).append("interrupted", clip_id="a", reason="time limit", is_counted=is_counted)
    assert tried(paths) == found


def test_another_content_begins_anew(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, content="old").append("attempt failed", clip_id="a", **{"class": "oom", "error": ""})
    begin(paths, "x", content="old", pid=dead_pid)
    assert tried(paths) == []


def test_what_was_cancelled_counts_for_nothing(paths: RunPaths, dead_pid: int) -> None:
    begin(paths, "x", task="7_1", pid=dead_pid)
    begin(paths, "y", task="7_2", pid=dead_pid)
    close_cancelled(paths, read_history(paths, CONTENTS), {"7_1"})
    assert tried(paths) == [(1, "lost")], "that of the other task"


def test_events_of_one_worker_end_no_attempt_of_another(paths: RunPaths) -> None:
    begin(paths, "x")
    begin(paths, "y").append("attempt failed", clip_id="a", **{"class": "oom", "error": ""})
    assert [event["worker"] for event in read_history(paths, CONTENTS).open] == ["x"]


def test_half_a_line_is_left_out_and_waited_for(paths: RunPaths) -> None:
    begin(paths)
    path, whole = paths.ledger("w"), paths.ledger("w").read_bytes()
    tail = LedgerTail(paths)
    path.write_bytes(whole + whole[:40])
    assert len(list(read_events(paths))) == 1
    assert len(tail.new_events()) == 1
    path.write_bytes(whole + whole)
    assert len(tail.new_events()) == 1
    assert tail.new_events() == []
    assert last_done(paths) == {}


def test_every_event_tells_who_and_where(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    told: list[dict[str, Any]] = []
    Ledger(paths.ledger("w"), task="7_1", on_event=told.append).append("started", clip_id="a")
    (event,) = read_events(paths)
    assert told == [event]
    who = {key: event[key] for key in ("worker", "host", "pid", "gpu", "task")}
    assert who == {"worker": "w", "host": "node7", "pid": os.getpid(), "gpu": "3", "task": "7_1"}


@pytest.fixture(autouse=True)
def _no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
