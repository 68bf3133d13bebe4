"""What computes a clip again, and what does not: names, other prompts, requests, results of other runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest

import aot
from aot import run as run_module
from aot.errors import ConfigError
from aot.launching.plan import Plan, make_plan
from aot.launching.reuse import reuse_results
from aot.paths import RunPaths
from aot.retry import Rung
from aot.run import Run
from aot.runs.fingerprint import Fingerprint
from aot.runs.ledger import Ledger
from aot.runs.run_json import read_run_json
from aot.runs.task import ClipTask
from aot.types import Prompt, Words
from aot.verify import main as verify
from tests.launching import in_memory
from tests.launching.clips import Clips
from tests.launching.in_memory import BOX, FakeLauncher, MemoryRun, part, record_done


class Changing(MemoryRun):
    """A run of three clips that were computed; the prompts of all clips can be changed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, {"a": 10, "b": 20, "c": 30})
        self._monkeypatch = monkeypatch
        for clip_id in "abc":
            self.finish(clip_id)

    def prompt(self, prompt: Prompt) -> None:
        self._monkeypatch.setattr(in_memory, "BOX", prompt)

    def run(self, **changes: Any) -> int:
        def work(plan: Plan, tasks: Sequence[ClipTask]) -> None:
            for task in tasks:
                record_done(plan.paths, task, Ledger(plan.paths, "w"))

        command = Run(self.plan(launcher=part(FakeLauncher, work=work), **changes), ["aot", "run"])
        command.start()
        return command.finish()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changing:
    monkeypatch.setattr(run_module, "update_index", lambda paths: None)
    monkeypatch.setattr("aot.config._absolute", lambda values: {key: str(value) for key, value in values.items()})
    return Changing(tmp_path, monkeypatch)


def test_changed_name_leaves_the_result_to_be_renamed(run: Changing) -> None:
    run.prompt(replace(BOX, name="mug"))
    assert run.works() == dict.fromkeys("abc", "overlay")
    assert all(task.is_renamed and not task.is_replacing for task in run.tasks())
    run.prompt(BOX)
    assert run.works() == dict.fromkeys("abc", "nothing")


def test_changed_box_computes_the_clip_again(run: Changing) -> None:
    run.prompt(replace(BOX, box=(9, 20, 28, 40)))
    assert run.works() == dict.fromkeys("abc", "all")
    assert all(task.is_replacing for task in run.tasks())


def test_name_of_an_object_that_a_detector_finds_is_part_of_what_is_computed(run: Changing) -> None:
    named = [aot.types.Clip("a", Path("a.mp4"), (Prompt(1, 0, name=name, words=Words("mug", (0,))),)) for name in "xy"]
    first, second = (Fingerprint.of(clip) for clip in named)
    assert not first.has_same_prompts(second.as_json())


def test_replaced_results_are_announced(run: Changing, capsys: pytest.CaptureFixture[str]) -> None:
    run.run()
    capsys.readouterr()
    run.prompt(replace(BOX, box=(9, 20, 28, 40)))
    assert run.run() == 0
    assert "3 results of other prompts will be replaced (a, b, c); output.root=FOLDER keeps both\n" in (
        capsys.readouterr().out
    )
    assert run.run() == 0
    assert "will be replaced" not in capsys.readouterr().out


def test_another_manifest_is_named(run: Changing, capsys: pytest.CaptureFixture[str]) -> None:
    run.run()
    written = read_run_json(run.paths)
    written["config"]["dataset"]["prompts"] = "/first.yaml"
    run.paths.run_json.write_text(json.dumps(written))
    run.prompt(replace(BOX, box=(9, 20, 28, 40)))
    plan = run.plan()
    plan.config.dataset.arguments["prompts"] = "/second.yaml"
    assert run_module._manifests(plan) == ": /first.yaml was the manifest, now it is /second.yaml"


@pytest.mark.parametrize(("redo", "expected"), [(("b",), ["b"]), (("all",), ["a", "b", "c"]), (("a", "c"), ["a", "c"])])
def test_finished_clips_are_computed_again_on_request(
    run: Changing, redo: tuple[str, ...], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    done = len(run.events("done"))
    assert run.run(redo=redo) == 0
    assert f"computed again on request: {', '.join(expected)}; the results are replaced" in capsys.readouterr().out
    assert [event["clip_id"] for event in run.events("done")[done:]] == expected
    assert run.works() == dict.fromkeys("abc", "nothing")


def test_requested_clip_stays_pending_until_it_is_done(run: Changing) -> None:
    plan = run.plan(redo=("b",))
    tasks = plan.tasks(retries=True)
    plan.request_retries(tasks)
    assert run.works() == {"a": "nothing", "b": "all", "c": "nothing"}, "for the next command, too"
    assert [task.is_redone for task in run.tasks()] == [False], "it is not requested twice"
    task = next(task for task in tasks if task.clip.clip_id == "b")
    handed = run.context().tasks_since([task], "7_1")
    assert handed == [task]
    ledger = Ledger(run.paths, "7_1.elsewhere-1-0", scheduler_task="7_1")
    ledger.append("started", **task.start_fields(Rung(1, 1, lean=False)), host="elsewhere", pid=1)
    (again,) = run.context().tasks_since([task], "7_1", is_restarted=True)
    assert (again.work.value, [attempt.kind for attempt in again.attempts]) == ("all", ["lost"])
    record_done(run.paths, task, ledger)
    os.utime(run.paths.clip("b").result, (1, 1))
    assert run.works() == dict.fromkeys("abc", "nothing")
    assert run.context().tasks_since([task], "7_1")[0].work.value == "nothing"


def test_unknown_clip_is_refused(run: Changing) -> None:
    with pytest.raises(ConfigError, match=r"^redo: d is not a clip id of this run"):
        run.plan(redo=("d", "a"))


class Beside(Changing):
    """A run, and another one with the same settings: of a sweep, or beside a sweep."""

    def other(self, place: str) -> RunPaths:
        """An empty run folder at a place below the folder of the dataset."""
        root = self.folder / "outputs" / "ListedClips" / place / "name"
        root.mkdir(parents=True)
        return RunPaths(root)

    def plan_in(self, paths: RunPaths, **changes: Any) -> Plan:
        return make_plan(self.config(**changes), paths.root)

    def finish_in(self, paths: RunPaths, **summary: Any) -> None:
        plan = self.plan_in(paths)
        plan.write(with_sizes=False)
        for task in plan.tasks():
            ledger = Ledger(paths, "w")
            result = paths.clip(task.clip.clip_id).result
            result.parent.mkdir(parents=True, exist_ok=True)
            result.write_text(f"result of {task.clip.clip_id}")
            made = in_memory.summary_of(**summary)
            ledger.append(
                "done", clip_id=task.clip.clip_id, content=task.fingerprint.as_json(), summary=made,
                file_bytes=result.stat().st_size, is_partial=bool(made["object_errors"]),
            )  # fmt: skip


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    monkeypatch.setattr("aot.config._absolute", lambda values: {key: str(value) for key, value in values.items()})
    return Beside(tmp_path, monkeypatch)


@pytest.mark.parametrize(("own", "other"), [("sweep-01234567", ""), ("", "sweep-01234567"), ("sweep-0", "sweep-1")])
def test_results_of_runs_with_the_same_settings_are_linked(beside: Beside, own: str, other: str) -> None:
    first, second = beside.other(other), beside.other(own)
    beside.finish_in(first)
    plan = beside.plan_in(second)
    plan.write(with_sizes=False)
    assert reuse_results(plan, plan.tasks()) == {clip_id: first.clip(clip_id).result for clip_id in "abc"}
    for clip_id in "abc":
        assert second.clip(clip_id).result.samefile(first.clip(clip_id).result)
    assert {task.work.value for task in plan.tasks()} == {"overlay"}, "only the drawings and the record are left"
    assert all(task.is_recorded and not task.is_scored for task in plan.tasks())


def test_result_is_copied_where_it_cannot_be_linked(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError

    first, second = beside.other(""), beside.other("sweep-1")
    beside.finish_in(first)
    plan = beside.plan_in(second)
    plan.write(with_sizes=False)
    monkeypatch.setattr(os, "link", refuse)
    assert len(reuse_results(plan, plan.tasks())) == 3
    assert not second.clip("a").result.samefile(first.clip("a").result)
    assert second.clip("a").result.read_text() == "result of a"
    assert {task.work.value for task in plan.tasks()} == {"overlay"}


def change_source(beside: Beside, first: RunPaths) -> None:
    beside.write_source("a", b"another video")


def change_prompts(beside: Beside, first: RunPaths) -> None:
    beside.prompt(replace(BOX, box=(9, 20, 28, 40)))


def change_hash(beside: Beside, first: RunPaths) -> None:
    first.run_json.write_text(json.dumps(read_run_json(first) | {"config_hash": "another"}))


def damage(beside: Beside, first: RunPaths) -> None:
    first.clip("a").result.write_text("cut")


@pytest.mark.parametrize(
    ("change", "left"), [(change_source, "a"), (change_prompts, "abc"), (change_hash, "abc"), (damage, "a")]
)
def test_other_results_are_not_linked(beside: Beside, change: Any, left: str) -> None:
    first, second = beside.other(""), beside.other("sweep-1")
    beside.finish_in(first)
    change(beside, first)
    plan = beside.plan_in(second)
    plan.write(with_sizes=False)
    assert set("abc") - reuse_results(plan, plan.tasks()).keys() == set(left)


def test_partial_results_and_clips_with_attempts_are_computed(beside: Beside) -> None:
    first, second = beside.other(""), beside.other("sweep-1")
    beside.finish_in(first, object_errors={"1": "no mask"})
    plan = beside.plan_in(second)
    plan.write(with_sizes=False)
    assert reuse_results(plan, plan.tasks()) == {}


def test_renamed_object_of_a_linked_result_is_noticed(beside: Beside) -> None:
    first, second = beside.other(""), beside.other("sweep-1")
    beside.finish_in(first)
    beside.prompt(replace(BOX, name="mug"))
    plan = beside.plan_in(second)
    plan.write(with_sizes=False)
    assert len(reuse_results(plan, plan.tasks())) == 3
    assert all(task.is_renamed for task in plan.tasks())


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_names_and_sweeps_compute_nothing_again(
    tmp_path: Path, launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = Clips(tmp_path, {"a": 5, "b": 7})
    arguments = (f"launcher={launcher}", "output.overlay=true")
    assert clips.run(*arguments) == 0
    root, paths = clips.root, clips.paths
    before = {clip_id: aot.load(paths.clip(clip_id).result, masks=True) for clip_id in "ab"}
    manifest = tmp_path / "clips" / "prompts.yaml"
    manifest.write_text(manifest.read_text().replace("name: square", "name: teapot"))
    capsys.readouterr()
    assert clips.run(*arguments) == 0
    assert "2 clips: 0 to run, 2 to draw" in capsys.readouterr().out
    for clip_id in "ab":
        result = aot.load(paths.clip(clip_id).result, masks=True)
        assert result.object_name == ("teapot",)
        assert [prompt["name"] for prompts in result.object_prompts for prompt in prompts] == ["teapot"]
        assert (result.tracks.xy == before[clip_id].tracks.xy).all()
        assert "teapot" in paths.clip(clip_id).report.data.read_text()
    assert sorted(clips.started()) == ["a", "b"], "each was computed once"
    assert verify([str(root)]) == 0, "with the new checksums"
    assert clips.run(*arguments) == 0
    assert "2 finished before" in capsys.readouterr().out
    assert clips.run("-m", "frame_interval=1,2", *arguments) == 0
    shown = capsys.readouterr().out
    assert f"not computed again: 2 results of runs with the same settings ({root})" in shown
    (linked,) = (root.parent).glob(f"sweep-*/{root.name}")
    with h5py.File(RunPaths(linked).clip("a").result) as file:
        assert file["objects/name"].asstr()[0] == "teapot"
    assert verify([str(linked)]) == 0
