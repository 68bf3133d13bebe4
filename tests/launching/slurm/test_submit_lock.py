"""One command submits at a time; a lock that its holder has left is taken over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aot.errors import ConfigError
from aot.launching.slurm import submit_lock
from aot.launching.slurm.submit_lock import submitting
from aot.paths import RunPaths
from aot.runs.ledger import SILENT_SECONDS
from aot.system.processes import host

DEAD = 2**22 + 1


class FakeClock:
    """Time passes while one sleeps; `at` has what happens then."""

    def __init__(self) -> None:
        self.now = 0.0
        self.at: dict[float, Callable[[], None]] = {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path)


def hold(paths: RunPaths, **changes: Any) -> None:
    holder = {"user": "ada", "host": host(), "pid": os.getppid(), "token": "0", "since": "2026-01-01T08:00:00+00:00"}
    paths.submit_lock.parent.mkdir(exist_ok=True)
    paths.submit_lock.write_text(json.dumps(holder | changes))


def test_lock_exists_while_it_is_held(paths: RunPaths) -> None:
    with submitting(paths, FakeClock()):
        holder = json.loads(paths.submit_lock.read_text())
        assert (holder["host"], holder["pid"]) == (host(), os.getpid())
    assert list(paths.submit_lock.parent.iterdir()) == []
    with pytest.raises(KeyError), submitting(paths, FakeClock()):
        raise KeyError
    assert list(paths.submit_lock.parent.iterdir()) == []


def test_it_is_waited_for(paths: RunPaths, capsys: pytest.CaptureFixture[str]) -> None:
    hold(paths)
    clock = FakeClock()
    clock.at[200.0] = paths.submit_lock.unlink
    with submitting(paths, clock):
        assert clock.now == 200.0
    assert capsys.readouterr().err == (
        f"waiting until the command of ada on {host()} (process {os.getppid()}, since 2026-01-01T08:00:00+00:00) has "
        f"submitted the tasks of this run ({paths.submit_lock})\n"
    )


def test_command_that_waits_too_long_names_the_holder_and_the_file(paths: RunPaths) -> None:
    hold(paths)
    with pytest.raises(ConfigError) as refused, submitting(paths, FakeClock()):
        pass
    assert str(refused.value) == (
        f"the command of ada on {host()} (process {os.getppid()}, since 2026-01-01T08:00:00+00:00) has been submitting "
        f"the tasks of this run for 15 min; run the same command again later, or delete {paths.submit_lock} if that "
        f"command does not run any more"
    )
    assert paths.submit_lock.exists(), "it is that of the other command"


def test_lock_of_a_dead_process_of_this_machine_is_taken_over_at_once(paths: RunPaths) -> None:
    hold(paths, pid=DEAD)
    clock = FakeClock()
    with submitting(paths, clock):
        assert clock.now == 0.0
    assert list(paths.submit_lock.parent.iterdir()) == []


@pytest.mark.parametrize("content", [None, "", "{", "[1]"])
def test_lock_of_another_machine_is_taken_over_when_it_was_not_touched_for_long(
    paths: RunPaths, content: str | None
) -> None:
    hold(paths, host="elsewhere", pid=os.getpid())
    if content is not None:
        paths.submit_lock.write_text(content)
    clock = FakeClock()
    with submitting(paths, clock):
        assert clock.now == SILENT_SECONDS


def test_living_holder_on_another_machine_keeps_its_lock(paths: RunPaths) -> None:
    hold(paths, host="elsewhere")
    clock = FakeClock()
    clock.at = {moment: lambda moment=moment: os.utime(paths.submit_lock, (moment, moment)) for moment in (60.0, 120.0)}
    with submitting(paths, clock):
        assert clock.now == 120.0 + SILENT_SECONDS


def test_holder_shows_that_it_is_alive(paths: RunPaths) -> None:
    with submitting(paths, FakeClock()) as show_life:
        os.utime(paths.submit_lock, (1, 1))
        show_life()
        assert paths.submit_lock.stat().st_mtime > 1


def test_lock_that_was_taken_over_is_left_to_its_new_holder(paths: RunPaths) -> None:
    with submitting(paths, FakeClock()):
        hold(paths)
    assert paths.submit_lock.exists()


def test_new_lock_of_a_third_command_is_not_removed_as_the_old_one(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands see a stale lock; the first one has replaced it when the second one removes it."""
    hold(paths, pid=DEAD)
    is_over, first = submit_lock._is_over, [True]

    def replace(holder: Any, seconds: float) -> bool:
        found = is_over(holder, seconds)
        if first.pop() if first else False:
            hold(paths, token="1")
        return found

    monkeypatch.setattr(submit_lock, "_is_over", replace)
    with pytest.raises(ConfigError), submitting(paths, FakeClock()):
        pass
    assert json.loads(paths.submit_lock.read_text())["token"] == "1"
