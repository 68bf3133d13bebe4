"""How a run is started and how it ends: text, exit codes and errors, with a launcher that is scripted.

tests/test_run.py has complete runs over real videos.
"""

from __future__ import annotations

import csv
import errno
import grp
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aot import run as run_module
from aot.config import Selection, Shard
from aot.errors import AotError, ConfigError, WriteError
from aot.launching.plan import Plan, make_plan
from aot.report.index import write_report
from aot.run import Run, _point_to_sweep, main
from aot.runs.ledger import Ledger
from aot.runs.run_json import read_run_json
from aot.runs.task import ClipTask
from aot.status import StatusReader
from aot.system.group_access import own_groups, restored_umask
from aot.system.processes import host
from tests.launching.in_memory import FakeLauncher, MemoryRun, part, record_done

Work = Callable[[Plan, Sequence[ClipTask]], None]


def finish_all(plan: Plan, tasks: Sequence[ClipTask]) -> None:
    for task in tasks:
        record_done(plan.paths, task, Ledger(plan.paths, "w"))


class Started(MemoryRun):
    """A run of three clips."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"a": 10, "b": 20, "c": 30})

    def run(
        self, work: Work | None = finish_all, *, divides_work: bool = False, strict: bool = False, **changes: Any
    ) -> int:
        launcher = part(FakeLauncher, work=work, divides_work=divides_work, strict=strict)
        self.last = Run(self.plan(launcher=launcher, **changes), ["aot", "run"])
        self.last.start()
        return self.last.finish()

    def fail(self, clip_id: str, kind: str = "decode", at: str = "2000") -> None:
        content = self.task(clip_id).fingerprint.as_json()
        path = self.paths.clip(clip_id).failure
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"class": kind, "message": "broken", "at": at, "content": content}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Started:
    # The results of these runs are text files.
    monkeypatch.setattr(run_module, "update_index", lambda paths: None)
    # A launcher's arguments are recorded in run.json.
    monkeypatch.setattr("aot.config._absolute", lambda values: {key: str(value) for key, value in values.items()})
    return Started(tmp_path)


def fails(error: BaseException) -> Work:
    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        raise error

    return work


def test_finished_run(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run() == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == [str(run.paths.root), "3 clips: 3 to run"]
    assert "3 clips: 3 done" in shown.out
    assert shown.err == ""
    assert run.last.is_started
    assert run.paths.summary.read_text().count("\n") == 4
    assert read_run_json(run.paths)["command"] == ["aot", "run"]


def test_clips_without_a_prompt_are_listed_as_such(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("unprompted-x", "unprompted-y"):
        run.write_source(name, b"")
    assert run.run() == 0, "a clip without a prompt is not a failure"
    assert "5 clips: 3 done, 2 no prompt" in capsys.readouterr().out
    assert read_run_json(run.paths)["no_prompt"] == ["unprompted-x", "unprompted-y"]
    table = list(csv.DictReader(run.paths.summary.read_text().splitlines()))
    assert [(row["clip_id"], row["state"]) for row in table[3:]] == [
        ("unprompted-x", "no prompt"),
        ("unprompted-y", "no prompt"),
    ]
    status = StatusReader(run.paths).read()
    assert (status.counts["done"], status.counts["no prompt"], status.num_left) == (3, 2, 0)
    assert '"no prompt"' in (write_report(run.paths).parent / "data" / "run.js").read_text()


def test_a_clip_without_a_prompt_stays_listed_until_it_has_one(run: Started) -> None:
    for name in ("unprompted-x", "unprompted-y"):
        run.write_source(name, b"")
    run.run()
    run.run(selection=Selection(include=("a",)))
    assert read_run_json(run.paths)["no_prompt"] == ["unprompted-x", "unprompted-y"]
    plan = run.plan()
    plan.__dict__["fingerprints"] = plan.fingerprints | {"unprompted-x": run.task("a").fingerprint}
    assert plan.all_without_prompt == ["unprompted-y"]


def test_text_before_the_start(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("x1", "x2", "x3", "x4", "x5", "x6"):
        run.write_source(f"unprompted-{name}", b"")
    run.finish("a")
    run.fail("b")
    assert run.run(overlay=True) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == (
        "3 clips: 1 to run, 1 to draw, 1 failed before (retry it with 'retry=[all]', error classes or ids)"
    )
    named = ", ".join(f"unprompted-x{number}" for number in range(1, 6))
    assert shown[2] == f"skipped without a prompt: 6 clips ({named}, …)"
    run.fail("c")
    run.paths.clip("c").result.unlink()
    assert run.run(retry="a") == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == (
        "3 clips: 0 to run, 1 finished before, 2 failed before (retry them with 'retry=[all]', error classes or ids)"
    )
    assert shown[2] == "retry: a finished before; only failed clips are retried, see redo="


def test_shard_is_named_and_only_its_clips_are_counted(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(shard=Shard(number=1, count=2)) == 0
    shown = capsys.readouterr().out
    assert "1 clip (shard 1 of 2, 3 in total): 1 to run" in shown
    assert "1 clip: 1 done" in shown
    assert run.paths.summary.read_text().count("\n") == 4, "summary.csv has the clips of all shards"


def test_only_the_last_shard_of_a_large_run_writes_the_table(
    run: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_module, "MIN_CLIPS", 3)
    assert run.run(shard=Shard(number=1, count=2)) == 0
    shown = capsys.readouterr().out
    assert f"{run.paths.root}: 2 clips of other shards left; the command that ends last writes summary.csv" in shown
    assert "1 clip: 1 done" in shown
    assert not run.paths.summary.exists()
    assert run.run(shard=Shard(number=2, count=2)) == 0
    assert "2 clips: 2 done" in capsys.readouterr().out
    assert run.paths.summary.read_text().count("\n") == 4


@pytest.mark.parametrize(("shard", "divides_work", "expected"), [
    (None, False, False), (None, True, True), (Shard(number=1, count=2), False, True),
])  # fmt: skip
def test_headers_are_read_where_costs_matter(
    run: Started, monkeypatch: pytest.MonkeyPatch, shard: Shard | None, divides_work: bool, expected: bool
) -> None:
    given: list[bool] = []
    monkeypatch.setattr(Plan, "write", lambda self, command, *, with_sizes: given.append(with_sizes))
    run.run(shard=shard, divides_work=divides_work)
    assert given == [expected]


@pytest.mark.parametrize("at", ["2000", "2999"])
@pytest.mark.parametrize("is_during_the_run", [True, False])
def test_failure_of_a_clip_of_which_nothing_is_left_to_do_is_removed(
    run: Started, at: str, is_during_the_run: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second worker of the clip, in a task that SLURM has run twice, failed to draw it when the first was done."""

    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        finish_all(plan, tasks)
        if is_during_the_run:
            run.fail("a", "write", at=at)

    assert run.run(work) == 0
    if not is_during_the_run:
        run.fail("a", "write", at=at)
        assert StatusReader(run.paths).read().counts == {"partial": 1, "done": 2}
        assert run.run(fails(AssertionError())) == 0, "the launcher is not called"
    assert not run.paths.clip("a").failure.exists()
    assert StatusReader(run.paths).read().counts == {"done": 3}
    assert "3 clips: 3 done" in capsys.readouterr().out
    with run.paths.summary.open() as file:
        assert [(row["state"], row["error"]) for row in csv.DictReader(file)] == [("done", "")] * 3


def test_failure_of_a_clip_that_is_not_drawn_stays(run: Started) -> None:
    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        finish_all(plan, tasks)
        run.fail("a", "write")

    assert run.run(work, overlay=True) == 1
    assert run.paths.clip("a").failure.exists()


@pytest.mark.parametrize(("strict", "expected"), [(False, 0), (True, 1)])
def test_clips_with_a_larger_frame_interval_are_exit_code_1_on_request(
    run: Started, strict: bool, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        for task, interval in zip(tasks, (2, 1, 2)):
            rung = {"frame_interval": interval, "rung": 3} if interval > 1 else {"rung": 2}
            record_done(plan.paths, task, Ledger(plan.paths, "w"), **rung)

    assert run.run(work, strict=strict) == expected
    message = (
        f"{run.paths.root}: 2 clips ran out of memory and were computed with a larger frame_interval than 1 (a, c), "
        f"which launcher.strict=true does not accept; run with more memory and 'redo=[a,c]'\n"
    )
    assert capsys.readouterr().err == (message if strict else "")
    assert run.run(fails(AssertionError()), strict=strict) == expected, "the same of a run that is finished"


def test_failed_partial_and_missing_clips_are_exit_code_1(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        record_done(plan.paths, tasks[0], Ledger(plan.paths, "w"))
        record_done(plan.paths, tasks[1], Ledger(plan.paths, "w"), object_errors={"2": "no mask"})

    assert run.run(work) == 1
    assert "3 clips: 1 done, 1 partial, 1 pending" in capsys.readouterr().out
    run.fail("c")
    assert run.run(work) == 1
    assert "3 clips: 1 done, 1 partial, 1 failed" in capsys.readouterr().out


def test_launcher_that_does_not_wait_is_success(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run(None) == 0
    assert not run.last.is_started
    assert not run.paths.summary.exists()
    assert run.paths.run_json.exists()


def test_launcher_is_not_called_if_nothing_needs_work(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run() == 0
    assert run.run(fails(AssertionError())) == 0
    assert "3 clips: 0 to run, 3 finished before" in capsys.readouterr().out


def test_results_that_were_not_computed_again_are_not_success(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run() == 0
    run.write_source("a", b"another video")
    run.write_source("b", b"another video")
    assert run.run(lambda plan, tasks: None) == 1
    expected = f"{run.paths.root}: 2 clips not processed, only earlier results exist; run the same command again"
    assert expected in capsys.readouterr().err
    assert run.run() == 0


def test_clip_that_ended_during_the_run_was_processed(run: Started) -> None:
    """A second command with the same settings may have removed one of its files since."""
    assert run.run() == 0
    run.write_source("a", b"another video")

    def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
        finish_all(plan, tasks)
        run.write_source("a", b"a third video")

    assert run.run(work) == 0


@pytest.mark.parametrize(
    ("error", "exit_code", "text"),
    [
        (ConfigError("SLURM refused the tasks"), 2, "was not started: SLURM refused the tasks"),
        (AotError("3 worker processes in a row died"), 1, ": stopped: 3 worker processes in a row died"),
        (WriteError("the disk is full"), 1, ": stopped: the disk is full"),
    ],
)
def test_errors_of_the_launcher(
    run: Started, error: AotError, exit_code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.run(fails(error)) == exit_code
    assert text in capsys.readouterr().err


class Commands:
    """`aot.run.main` with plans that a test makes.

    Attributes:
        plans: of the jobs.
        error: raised while the command is checked.
    """

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.error: AotError | None = None

    def plan_all(self, configs: Any, *, is_sweep: bool) -> list[Plan]:
        if self.error is not None:
            raise self.error
        return self.plans


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    commands = Commands()
    monkeypatch.setattr(run_module, "compose_jobs", lambda command: ([], []))
    monkeypatch.setattr(run_module, "_plan_all", commands.plan_all)
    return commands


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_command(
    run: Started, commands: Commands, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    work = lambda plan, tasks: os.kill(os.getpid(), number)  # noqa: E731
    commands.plans = [run.plan(launcher=part(FakeLauncher, work=work))]
    assert main(["dataset=videos"]) == 130
    expected = f"\ninterrupted; finished clips are in {run.paths.root}. Run the same command again to resume\n"
    assert capsys.readouterr().err == expected
    assert signal.getsignal(signal.SIGTERM) is before


def test_wrong_command_starts_nothing(run: Started, commands: Commands, capsys: pytest.CaptureFixture[str]) -> None:
    commands.error = ConfigError("frame_interval=0 is wrong")
    assert main(["dataset=videos"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "frame_interval=0 is wrong", "Nothing was started. `python -m aot.run --help` lists all options.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "exit_code", "is_nothing_started"),
    [
        ([None, None], 0, False),
        ([None, AotError("x")], 1, False),
        ([None, ConfigError("x")], 1, False),
        ([ConfigError("x"), ConfigError("x")], 2, True),
    ],
)
def test_exit_code_of_a_sweep(
    run: Started,
    commands: Commands,
    capsys: pytest.CaptureFixture[str],
    errors: list[AotError | None],
    exit_code: int,
    is_nothing_started: bool,
) -> None:
    for number, error in enumerate(errors):
        launcher = part(FakeLauncher, work=finish_all, launch_error=error)
        commands.plans.append(
            make_plan(run.config(launcher=launcher, frame_interval=number + 1), run.paths.root / str(number))
        )
    assert main(["-m", "dataset=videos"]) == exit_code
    shown = capsys.readouterr()
    assert ("Nothing was started." in shown.err.splitlines()) == is_nothing_started
    assert ("quality against frame_interval" in shown.out) == (errors == [None, None]), "one run has no comparison"


def test_all_runs_are_started_before_one_is_waited_for(run: Started, commands: Commands) -> None:
    order: list[str] = []

    class Recorded(Run):
        def start(self) -> None:
            order.append("start")

        def finish(self) -> int:
            order.append("finish")
            return 0

    commands.plans = [run.plan(), run.plan()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Run", Recorded)
        assert main(["-m", "dataset=videos"]) == 0
    assert order == ["start", "start", "finish", "finish"]


def test_dry_run_starts_and_writes_nothing(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run.paths.root)
    assert run.run(fails(AssertionError()), dry_run=True) == 0
    assert "nothing was started (dry_run=true)" in capsys.readouterr().out
    assert not run.last.is_started
    assert not run.paths.root.exists()


def refuse_writing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise WriteError(f"{name} could not be written")

    if name == "run.json":
        monkeypatch.setattr(Plan, "write", fail)
    else:
        monkeypatch.setattr(run_module, {"summary.csv": "write_summary", "report": "write_report"}[name], fail)


def test_run_folder_that_cannot_be_written_starts_nothing(
    run: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_writing(monkeypatch, "run.json")
    assert run.run(fails(AssertionError())) == 2
    expected = f"{run.paths.root} was not started: run.json could not be written; choose another folder"
    assert expected in capsys.readouterr().err
    shutil.rmtree(run.paths.root)
    run.paths.root.write_text("a file")
    assert run.run(fails(AssertionError())) == 2
    assert f"was not started: {run.paths.root} is a file; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run.json", "summary.csv", "report"])
def test_finished_run_that_cannot_be_written_is_shown(
    run: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert run.run() == 0
    monkeypatch.setattr("aot.launching.plan.missing_drawings", lambda *arguments: [])
    monkeypatch.setattr(run_module, "write_report", lambda paths, rows, times: None)
    refuse_writing(monkeypatch, name)
    capsys.readouterr()
    assert run.run(report=True) == 0
    shown = capsys.readouterr()
    assert f"{run.paths.root}: not updated: {name} could not be written" in shown.err
    assert "3 clips: 3 done" in shown.out


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in [root, *root.rglob("*")]}


@pytest.mark.parametrize("closed", [".", "report", "clips", "logs/slurm"])
def test_finished_run_of_another_user_is_shown_and_nothing_is_written(
    run: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed: str
) -> None:
    (run.paths.root / "logs" / "slurm").mkdir(parents=True)
    assert run.run() == 0
    monkeypatch.setattr("aot.launching.plan.missing_drawings", lambda *arguments: [])
    (run.paths.root / "report").mkdir(exist_ok=True)
    place = run.paths.root / closed
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != place and access(path, mode))
    if closed == ".":
        monkeypatch.setattr("tempfile.mkdtemp", fails_to_write)
    before = snapshot(run.paths.root)
    capsys.readouterr()
    assert run.run(fails(AssertionError()), report=True) == 0
    shown = capsys.readouterr()
    assert shown.err == f"{run.paths.root}: not updated: {place} is not writable for this user; no clip needs work\n"
    assert "3 clips: 3 done" in shown.out
    assert snapshot(run.paths.root) == before
    run.write_source("a", b"another video")
    monkeypatch.setattr("aot.run.owner_of", lambda path: "ada")
    assert run.run(report=True) == 2
    assert capsys.readouterr().err == (
        f"{run.paths.root} was not started: {place} is not writable for this user; choose another folder with "
        f"output.root=FOLDER, or ask ada to run the command with output.group=GROUP\n"
    )
    assert snapshot(run.paths.root) == before


def fails_to_write(*arguments: Any, **options: Any) -> str:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_group_may_write_what_a_run_creates(run: Started) -> None:
    group = "daemon" if os.geteuid() == 0 else own_groups()[0]
    number = grp.getgrnam(group).gr_gid
    shutil.rmtree(run.paths.root)
    with restored_umask():
        os.umask(0o077)
        assert run.run(group=group) == 0
        assert os.umask(0o077) == 0o007
    files = [path for path in run.paths.root.rglob("*") if path.is_file()]
    folders = [run.paths.root, *(path for path in run.paths.root.rglob("*") if path.is_dir())]
    assert {path.name for path in files} >= {"run.json", "a.h5", "w.jsonl", "summary.csv"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o660}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o2770}
    assert {path.stat().st_gid for path in [*files, *folders]} == {number}


def test_group_that_does_not_exist_starts_nothing(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    with restored_umask():
        assert run.run(fails(AssertionError()), group="no such group") == 2
    assert "was not started: output.group=no such group: there is no such group; expected one of " in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("name", "is_table_shown"), [("summary.csv", False), ("report", True)])
def test_disk_that_is_full_at_the_end_is_an_error(
    run: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, is_table_shown: bool
) -> None:
    refuse_writing(monkeypatch, name)
    assert run.run(report=True) == 1
    shown = capsys.readouterr()
    assert f"{run.paths.root}: stopped: {name} could not be written" in shown.err
    assert ("3 clips: 3 done" in shown.out) == is_table_shown


@pytest.mark.parametrize("report", [True, False])
def test_report_is_written_on_request(run: Started, monkeypatch: pytest.MonkeyPatch, report: bool) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(
        run_module, "write_report", lambda paths, rows, times: given.append([row["clip_id"] for row in rows])
    )
    run.run(selection=Selection(limit=2))
    assert run.run(selection=Selection(exclude=("a", "b")), report=report) == 0
    assert given == ([["a", "b", "c"]] if report else []), "with the clips of earlier commands"


def test_parts_of_dead_processes_are_removed_before_the_start(run: Started) -> None:
    dead = run.paths.results / f".{host()}-{2**22 + 5}-abc.h5.part"
    dead.parent.mkdir(parents=True)
    dead.touch()
    is_there: list[bool] = []
    run.run(lambda plan, tasks: is_there.append(dead.exists()))
    assert is_there == [False]


def test_commands_that_compare_a_sweep(run: Started, capsys: pytest.CaptureFixture[str]) -> None:
    plans = [run.plan(frame_interval=interval) for interval in (1, 2)]
    _point_to_sweep(plans[:1])
    _point_to_sweep([plans[0], plans[0]])
    _point_to_sweep([])
    assert capsys.readouterr().out == ""
    _point_to_sweep(plans)
    assert capsys.readouterr().out == f"quality against frame_interval: python -m aot.sweep {run.paths.root.parent}\n"
