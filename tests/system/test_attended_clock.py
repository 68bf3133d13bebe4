"""The clock that leaves out the time in which the process was stopped."""

from __future__ import annotations

from aot.system.attended_clock import AttendedClock


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_time_passes_while_the_clock_is_read() -> None:
    time = Time()
    clock = AttendedClock(time)
    for _ in range(100):
        time.now += 0.5
        clock()
    assert clock() == 50.0
    time.now += 4.0
    assert clock() == 54.0, "the process was busy for a moment"


def test_time_without_readings_does_not_pass() -> None:
    time = Time()
    clock = AttendedClock(time)
    time.now += 1.0
    assert clock() == 1.0
    for _ in range(3):
        time.now += 3600.0
        assert clock() == clock()
        time.now += 1.0
        clock()
    assert clock() == 4.0
