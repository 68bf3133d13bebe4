"""The main function of a worker process, called in this process: its messages, signals and exit codes."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from aot.launching import child
from aot.launching.messages import Assignment, Heartbeat, LedgerEvent, Progress, Ready, Start
from aot.launching.worker import BrokenProcess
from aot.runs.task import ClipTask, Work
from tests.launching.in_memory import MemoryRun

EVENT = {"event": "started", "clip_id": "a"}


class FakeWorker:
    """Reports one event and one stage per clip, then does what the test wants."""

    made: list[FakeWorker]
    act: Callable[[], None]

    def __init__(self, run: Any, *, name: str, scheduler_task: str | None, on_event: Any, leaves_drawing: bool) -> None:
        self.run_context, self.name, self.scheduler_task, self.on_event = run, name, scheduler_task, on_event
        self.leaves_drawing = leaves_drawing
        self.is_closed = False
        self.assigned: list[tuple[str, str | None]] = []
        FakeWorker.made.append(self)

    def run(self, task: ClipTask, on_progress: Any, following: ClipTask | None) -> None:
        self.assigned.append((task.clip.clip_id, following and following.clip.clip_id))
        self.on_event(EVENT)
        on_progress("track", 0.5)
        FakeWorker.act()

    def close(self) -> None:
        self.is_closed = True


class Called:
    """A call of `child.main`, and what it did to its process."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.descriptor = theirs.detach()
        self.signals: dict[signal.Signals, Any] = {}
        self.memory_gb: list[float] = []
        self.parents: list[int] = []

    def main(self, *messages: Any) -> int:
        for message in messages:
            self.connection.send(message)
        return child.main(self.descriptor, 77)

    def received(self) -> list[Any]:
        """All messages but the heartbeats, until the connection is closed."""
        found = []
        while self.connection.poll():
            message = self.connection.recv()
            if not isinstance(message, Heartbeat):
                found.append(message)
        return found


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    call = Called()
    FakeWorker.made, FakeWorker.act = [], staticmethod(lambda: None)  # type: ignore[assignment]
    monkeypatch.setattr(child, "Worker", FakeWorker)
    monkeypatch.setattr(child, "cap_memory", call.memory_gb.append)
    monkeypatch.setattr(child, "die_with", call.parents.append)
    monkeypatch.setattr(child.faulthandler, "enable", lambda: None)
    monkeypatch.setattr(signal, "signal", call.signals.__setitem__)
    monkeypatch.setattr(child, "_HEARTBEAT_SECONDS", 3600.0)
    yield call
    call.connection.close()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    return Start(MemoryRun(tmp_path, {"a": 1}).context(), "w", "7_1", 2.5)


@pytest.fixture
def task(tmp_path: Path) -> ClipTask:
    return MemoryRun(tmp_path, {"a": 1}).task()


def test_clips_are_processed_until_there_are_no_more(called: Called, start: Start, task: ClipTask) -> None:
    assert called.main(start, Assignment(task, replace(task, work=Work.OVERLAY)), Assignment(task, None), None) == 0
    first, event, progress, second, *rest = called.received()
    assert (first, event, progress, second) == (Ready(), LedgerEvent(EVENT), Progress("track", 0.5), Ready())
    assert rest == [LedgerEvent(EVENT), Ready()], "progress is sent at most five times per second"
    (worker,) = FakeWorker.made
    assert (worker.name, worker.scheduler_task, worker.is_closed) == ("w", "7_1", True)
    assert worker.assigned == [("a", "a"), ("a", None)]
    assert worker.leaves_drawing, "a drawer draws its clips"
    assert worker.run_context.paths == start.run.paths
    assert called.memory_gb == [2.5]
    assert called.parents == [77]
    assert called.signals == {signal.SIGTERM: signal.SIG_IGN, signal.SIGINT: signal.default_int_handler}


def test_descriptor_is_not_inherited_by_processes_that_libraries_start(
    called: Called, start: Start, task: ClipTask
) -> None:
    inheritable: list[bool] = []
    FakeWorker.act = staticmethod(lambda: inheritable.append(os.get_inheritable(called.descriptor)))  # type: ignore[assignment]
    os.set_inheritable(called.descriptor, True)
    assert called.main(start, Assignment(task, None), None) == 0
    assert inheritable == [False]


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(BrokenProcess("CUDA is dead"), 70), (KeyboardInterrupt(), 130), (EOFError(), 130)],
)
def test_exit_codes(
    called: Called,
    start: Start,
    task: ClipTask,
    error: BaseException,
    exit_code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def act() -> None:
        raise error

    FakeWorker.act = staticmethod(act)  # type: ignore[assignment]
    assert called.main(start, Assignment(task, None), None) == exit_code
    assert FakeWorker.made[0].is_closed
    assert capsys.readouterr().err == ("the worker process exits: CUDA is dead\n" if exit_code == 70 else "")


def test_memory_is_not_limited_without_a_limit(called: Called, start: Start) -> None:
    assert called.main(Start(start.run, "w", None, None), None) == 0
    assert called.memory_gb == []


def test_supervisor_that_is_gone_before_the_start_ends_the_process(called: Called) -> None:
    called.connection.close()
    assert called.main() == 130
    assert FakeWorker.made == []


def test_heartbeats_are_sent_every_second_until_the_supervisor_is_gone(
    called: Called, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    received: list[Any] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        while called.connection.poll():
            received.append(called.connection.recv())
        if len(slept) == 3:
            called.connection.close()

    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(child, "_HEARTBEAT_SECONDS", 1.0)
    monkeypatch.setattr(child.time, "sleep", sleep)
    monkeypatch.setattr(child.time, "process_time", lambda: 12.5)
    monkeypatch.setattr(child.os, "_exit", leave)
    with pytest.raises(SystemExit, match="130"):
        child._Channel(Connection(called.descriptor)).send_heartbeats()
    assert received == [Heartbeat(12.5)] * 2
    assert slept == [1.0] * 3
