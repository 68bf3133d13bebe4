"""Calls made behind a bounded queue: their order, what waits for them, and what is left after an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aot.writing.behind import WriteBehind
from tests.waiting import wait_until


class Disk:
    """Holds back the writes until they are let through."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.begun = threading.Semaphore(0)
        self.may_write = threading.Semaphore(0)

    def write(self, number: int) -> None:
        self.begun.release()
        self.may_write.acquire()
        self.written.append(number)


@pytest.fixture
def disk() -> Iterator[Disk]:
    threads = threading.active_count()
    yield Disk()
    assert threading.active_count() == threads, "a thread is left"


def submit(behind: WriteBehind, disk: Disk, number: int, num_bytes: int = 1) -> None:
    behind.submit(lambda: disk.write(number), num_bytes)


def in_a_thread(function: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_calls_are_made_in_order_while_the_caller_continues(disk: Disk) -> None:
    with WriteBehind(10) as behind:
        for number in range(5):
            submit(behind, disk, number)
        assert disk.written == []
        disk.may_write.release(5)
        behind.wait()
        assert disk.written == [0, 1, 2, 3, 4]
        disk.may_write.release()
        submit(behind, disk, 5)
    assert disk.written == [0, 1, 2, 3, 4, 5], "the end of the block waits for the last call"


def test_a_full_queue_makes_the_caller_wait(disk: Disk) -> None:
    with WriteBehind(10) as behind:
        submit(behind, disk, 0, num_bytes=6)
        submit(behind, disk, 1, num_bytes=4)
        waiting = in_a_thread(submit, behind, disk, 2, 1)
        waiting.join(0.05)
        assert waiting.is_alive(), "10 bytes are being written or queued"
        disk.may_write.release()
        waiting.join()
        disk.may_write.release(2)
    assert disk.written == [0, 1, 2]


def test_a_call_larger_than_the_queue_is_made_when_the_queue_is_empty(disk: Disk) -> None:
    with WriteBehind(10) as behind:
        submit(behind, disk, 0, num_bytes=99)
        waiting = in_a_thread(submit, behind, disk, 1, 1)
        waiting.join(0.05)
        assert waiting.is_alive()
        disk.may_write.release(2)
        waiting.join()
    assert disk.written == [0, 1]


def fail() -> None:
    raise ZeroDivisionError("while writing")


@pytest.mark.parametrize("then", ["submit", "wait", "end"])
def test_the_error_of_a_call_is_raised_and_later_calls_are_not_made(disk: Disk, then: str) -> None:
    with pytest.raises(ZeroDivisionError, match="while writing"), WriteBehind(10) as behind:
        behind.submit(lambda: (disk.may_write.acquire(), fail()), 6)
        submit(behind, disk, 1)
        disk.may_write.release()
        if then == "submit":
            submit(behind, disk, 2, num_bytes=9)  # waits for the first call
        elif then == "wait":
            behind.wait()
    assert disk.written == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_in_the_block_drops_the_queue(disk: Disk, error: type[BaseException]) -> None:
    with pytest.raises(error), WriteBehind(10) as behind:
        for number in range(5):
            submit(behind, disk, number)
        disk.begun.acquire()
        in_a_thread(lambda: (wait_until(lambda: not behind._queue), disk.may_write.release()))
        raise error
    assert disk.written == [0], "the call that was being made has ended"


def test_no_thread_is_started_without_a_call() -> None:
    threads = threading.active_count()
    with WriteBehind(10) as behind:
        behind.wait()
        assert threading.active_count() == threads
