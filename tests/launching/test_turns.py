"""Which clip a worker takes next, and which one it reads ahead."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from aot.launching.turns import following, take_next
from aot.retry import Attempt, Rung
from aot.runs.task import ClipTask, Work
from tests.launching.in_memory import MemoryRun


@pytest.fixture
def queue(tmp_path: Path) -> deque[ClipTask]:
    return deque(MemoryRun(tmp_path, dict.fromkeys("abcde", 1)).tasks())


def ids(queue: deque[ClipTask]) -> str:
    return "".join(task.clip.clip_id for task in queue)


@pytest.mark.parametrize(
    ("own", "of_others", "taken", "left"),
    [
        (None, "", "a", "bcde"),
        ("c", "a", "c", "abde"),
        (None, "ab", "c", "abde"),
        ("x", "a", "b", "acde"),  # another worker has taken it
        (None, "abcde", "a", "bcde"),  # an idle worker would otherwise wait for a busy one
    ],
)
def test_next_clip(queue: deque[ClipTask], own: str | None, of_others: str, taken: str, left: str) -> None:
    assert take_next(queue, own, set(of_others)).clip.clip_id == taken
    assert ids(queue) == left


@pytest.mark.parametrize(
    ("of_others", "num_waiting", "expected"),
    [("", 0, "b"), ("b", 0, "c"), ("", 2, "d"), ("bd", 1, "e"), ("", 4, None), ("bcde", 0, None)],
)
def test_clip_to_read_ahead(queue: deque[ClipTask], of_others: str, num_waiting: int, expected: str | None) -> None:
    found = following(queue, queue.popleft(), set(of_others), num_waiting)
    assert (found and found.clip.clip_id) == expected
    assert ids(queue) == "bcde", "it stays in the queue"


LOST = {"attempts": (Attempt(Rung(1, 1, False), "lost"),)}


@pytest.mark.parametrize("change", [LOST, {"is_suspect": True}, {"work": Work.OVERLAY}])
@pytest.mark.parametrize("place", [0, 1])
def test_clips_that_may_have_ended_a_process_are_not_read_ahead_nor_others_meanwhile(
    queue: deque[ClipTask], change: dict[str, object], place: int
) -> None:
    queue[place] = replace(queue[place], **change)  # type: ignore[arg-type]
    assert following(queue, queue.popleft(), set(), 0) is None
