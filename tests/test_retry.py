"""The out-of-memory ladder: which rung follows which attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aot.retry import REPEATS, Attempt, Rung, ladder, next_rung

RUNGS = ladder(1, 4)


def climb(*kinds: str) -> list[int | None]:
    """Numbers of the rungs of attempts that end with these error classes, and of the next rung."""
    attempts: list[Attempt] = []
    for kind in kinds:
        rung = next_rung(RUNGS, attempts)
        assert rung is not None
        attempts.append(Attempt(rung, kind, "a message"))
    after = next_rung(RUNGS, attempts)
    return [*(attempt.rung.number for attempt in attempts), after and after.number]


def test_interval_grows_last_and_up_to_a_maximum() -> None:
    assert ladder(3, 16) == (Rung(1, 3, False), Rung(2, 3, True), Rung(3, 6, True), Rung(4, 12, True))
    assert [rung.frame_interval for rung in ladder(5, 4)] == [5, 5], "a requested interval above the maximum is kept"


@pytest.mark.parametrize(
    ("kinds", "numbers"),
    [
        ([], [1]),
        (["oom"], [1, 2]),
        (["oom", "oom", "oom"], [1, 2, 3, 4]),
        (["oom", "oom", "oom", "oom"], [1, 2, 3, 4, None]),
        (["lost", "lost", "lost"], [1, 1, 1, 1]),
        (["lost", "lost", "lost", "lost"], [1, 1, 1, 1, None]),
        (["lost", "oom", "lost", "oom"], [1, 1, 2, 2, 3]),
        (["crash"], [1, 1]),
        (["crash", "crash"], [1, 1, None]),
        (["write", "write"], [1, 1, None]),
        (["stall", "oom", "stall"], [1, 1, 2, 2]),
        (["stall", "stall"], [1, 1, None]),
        (["write", "crash"], [1, 1, 1]),
        (["crash", "write", "crash"], [1, 1, 1, None]),
        (["lost", "stall", "crash", "write"], [1, 1, 1, 1, 1]),
        (["lost", "lost", "lost", "stall", "lost"], [1, 1, 1, 1, 1, None]),
        (["stall", "oom", "stall", "stall"], [1, 1, 2, 2, None]),
        (["write", "decode"], [1, 1, None]),
        (["decode"], [1, None]),
        (["prompt"], [1, None]),
        (["unexpected"], [1, None]),
    ],
)
def test_the_next_rung(kinds: list[str], numbers: list[int | None]) -> None:
    assert climb(*kinds) == numbers


@given(st.lists(st.sampled_from(["oom", "decode", *REPEATS]), min_size=30, max_size=40))
def test_every_sequence_of_attempts_ends_and_rungs_never_decrease(kinds: list[str]) -> None:
    attempts: list[Attempt] = []
    for kind in kinds:
        rung = next_rung(RUNGS, attempts)
        if rung is None:
            break
        attempts.append(Attempt(rung, kind, ""))
    numbers = [attempt.rung.number for attempt in attempts]
    assert numbers == sorted(numbers)
    assert len(attempts) <= len(RUNGS) * (1 + sum(REPEATS.values()))


def test_attempts_are_read_from_json_unchanged() -> None:
    attempt = Attempt(Rung(3, 2, True), "oom", "a message")
    assert Attempt.from_json(attempt.as_json()) == attempt
    assert attempt.as_json() == {"rung": 3, "frame_interval": 2, "lean": True, "class": "oom", "error": "a message"}
