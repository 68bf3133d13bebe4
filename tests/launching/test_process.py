"""Worker processes: how they are started, how messages are exchanged, and how they are ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from aot.launching.process import WorkerProcess, start_process, wait_for_messages
from aot.launching.slots import Slot

SLOT = Slot(0, gpu="3", num_threads=2)


class Started:
    """`sh -c SCRIPT` as a worker process, and its end of the socket."""

    def __init__(self, script: str) -> None:
        ours, theirs = socket.socketpair()
        self.child = Connection(theirs.detach())
        self.popen = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
        self.process = WorkerProcess(self.popen, Connection(ours.detach()))


@pytest.fixture
def started() -> Iterator[list[Started]]:
    """Two processes that sleep; they are killed at the end."""
    processes = [Started("echo ready; sleep 60"), Started("trap 'exit 5' INT; echo ready; sleep 60 & wait")]
    for each in processes:
        assert each.popen.stdout is not None
        assert each.popen.stdout.readline() == b"ready\n"
    yield processes
    for each in processes:
        each.process.signal(signal.SIGKILL)
        each.process.end(10)
        each.child.close()
        assert each.popen.stdout is not None
        each.popen.stdout.close()


def test_messages_are_received_in_order_and_a_closed_connection_is_the_end(started: list[Started]) -> None:
    first, second = started
    processes = [first.process, second.process]
    assert wait_for_messages(processes, 0.01) == []
    second.child.send("one")
    second.child.send("two")
    assert wait_for_messages(processes, 10) == [second.process]
    assert [second.process.receive(), second.process.receive()] == ["one", "two"]
    second.process.send("task")
    assert second.child.recv() == "task"
    first.child.close()
    assert wait_for_messages(processes, 10) == [first.process]
    with pytest.raises(EOFError):
        first.process.receive()
    first.process.send("not read any more")


def test_broken_connection_is_the_end(started: list[Started]) -> None:
    process = started[0].process
    process.connection.close()
    with pytest.raises(EOFError):
        process.receive()
    process.send("not read any more")


def test_process_that_does_not_end_in_time_is_killed(started: list[Started]) -> None:
    first, second = (each.process for each in started)
    assert first.pid == os.getpgid(first.pid), "its own session: Ctrl-C does not reach it"
    first.end(0.01)
    assert first.exit_code == -signal.SIGKILL
    second.signal(signal.SIGINT)
    second.end(10)
    assert second.exit_code == 5
    second.signal(signal.SIGKILL)  # it has ended: nothing happens


def test_signal_reaches_the_processes_that_a_worker_has_started() -> None:
    each = Started("sleep 60 & echo $!; wait")
    assert each.popen.stdout is not None
    each.popen.stdout.readline()
    each.process.signal(signal.SIGKILL)
    each.process.end(10)
    assert each.popen.stdout.read() == b"", "the pipe is closed when the last process that holds it has ended"
    each.popen.stdout.close()
    each.child.close()


def test_process_gets_its_slot_its_socket_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"
    program.write_text(
        '#!/bin/sh\necho "$@ $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS"\necho error >&2\n'
        "cat\nls -l /proc/$$/fd/$3 | grep -o socket\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    log = tmp_path / "logs" / "w.log"
    for _ in range(2):
        process = start_process(SLOT, log)
        process.end(10)
        assert process.exit_code == 0
    first, error, kind, *again = log.read_text().splitlines()
    module, child, descriptor, parent, gpu, num_threads = first.split()
    assert (module, child, parent, gpu, num_threads) == ("-m", "aot.launching.child", str(os.getpid()), "3", "2")
    assert descriptor.isdecimal()
    assert (error, kind) == ("error", "socket")
    assert len(again) == 3, "the log is appended to"
