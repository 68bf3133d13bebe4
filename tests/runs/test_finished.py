"""The table of a large finished run is read again where nothing has changed, and made again where something has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aot import run as run_module
from aot.launching.plan import Plan
from aot.paths import RunPaths
from aot.run import Run
from aot.runs import finished as finished_module
from aot.runs.ledger import Ledger
from tests.launching.in_memory import FakeLauncher, MemoryRun, part, record_done


class Finished(MemoryRun):
    """A run of three clips, as if it were a large one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"12": 10, "b": 20, "c": 30})

    def run(self, **changes: Any) -> int:
        def work(plan: Plan, tasks: Any) -> None:
            for number, task in enumerate(tasks):
                checks = {"1": {"visible": 0.25, "in_mask": 1.0, "mask_stability": None, "return_error_px": 0.125}}
                notes = ["a note"] if number else []
                record_done(plan.paths, task, Ledger(plan.paths, f"w{number}"), checks=checks, notes=notes)

        command = Run(self.plan(launcher=part(FakeLauncher, work=work), **changes), ["aot", "run"])
        command.start()
        return command.finish()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number per time that the table was made from the ledgers."""
    times: list[int] = []
    read = run_module.read_records
    monkeypatch.setattr(run_module, "read_records", lambda paths: (times.append(1), read(paths))[1])
    return times


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: list[int]) -> Finished:
    monkeypatch.setattr(finished_module, "MIN_CLIPS", 3)
    monkeypatch.setattr(run_module, "update_index", lambda paths: paths.index.touch())
    monkeypatch.setattr("aot.config._absolute", lambda values: {key: str(value) for key, value in values.items()})
    found = Finished(tmp_path)
    assert found.run() == 0
    assert made == [1]
    return found


def test_table_is_printed_as_it_was_and_not_made_again(
    run: Finished, made: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.paths.summary.read_bytes()
    assert run.run() == 0
    assert made == [1]
    again = capsys.readouterr().out.splitlines()[1:]
    run.paths.finished.unlink()
    assert run.run() == 0
    assert made == [1, 1]
    assert capsys.readouterr().out.splitlines()[1:] == again
    assert run.paths.summary.read_bytes() == before


Change = Callable[[RunPaths], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda paths: paths.finished.write_text("{"),
        lambda paths: paths.summary.unlink(),
        lambda paths: paths.summary.write_text("clip_id\n12\n"),
        lambda paths: paths.index.unlink(),
        lambda paths: Ledger(paths, "w9").append("interrupted", clip_id="b", reason=""),
        lambda paths: paths.clip("b").result.unlink(),
        lambda paths: [paths.failures.mkdir(), (paths.failures / "other.json").write_text("{}")],
    ],
    ids=["record", "no table", "edited table", "no index", "ledger", "result", "failure"],
)  # fmt: skip
def test_table_is_made_again_after_a_change(run: Finished, made: list[int], change: Change) -> None:
    change(run.paths)
    assert run.run() == 0
    assert made == [1, 1]
    assert run.paths.summary.read_text().count("\n") == 4


def test_table_is_made_again_for_other_clips_another_version_or_a_report(
    run: Finished, made: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_source("d", b"x")
    assert run.run() == 0
    assert run.run() == 0
    assert made == [1, 1]
    monkeypatch.setattr(finished_module, "version", lambda: "another")
    assert run.run() == 0
    assert made == [1, 1, 1]


def test_tables_of_small_runs_are_always_made(run: Finished, made: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished_module, "MIN_CLIPS", 4)
    assert run.run() == 0
    assert made == [1, 1]
