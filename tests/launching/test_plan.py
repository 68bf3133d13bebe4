"""The plan of a run, made from a dataset of small files and from what earlier runs left in the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.config import Selection, Shard
from aot.decoding.size import ClipSize
from aot.errors import ConfigError, DatasetError, DecodeError
from aot.launching.plan import missing_drawings
from aot.manifest.serialize import prompts_as_json
from aot.retry import Attempt, Rung
from aot.runs.fingerprint import Fingerprint
from aot.runs.ledger import Ledger
from aot.runs.ledger_files import end_ledgers
from aot.runs.run_json import read_run_json
from aot.runs.state import merge_ended_ledgers
from aot.runs.task import ClipTask, Work
from aot.types import Clip, Prompt
from tests.fakes import ColourDetector
from tests.launching.in_memory import BOX, MemoryRun, part
from tests.results import write_result

AT = "2000-01-01T00:00:00+00:00"


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path, {"a": 10, "b": 20, "c": 30})


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> dict[str, ClipSize]:
    """Name of a source → size that its header has; the others cannot be read."""
    sizes: dict[str, ClipSize] = {}

    def read(source: Path, pattern: str | None = None, stream: int | None = None) -> ClipSize:
        if source.name not in sizes:
            raise DecodeError("no header")
        return sizes[source.name]

    monkeypatch.setattr("aot.launching.costs.read_size", read)
    return sizes


def fail(run: MemoryRun, clip_id: str = "a", *, kind: str = "oom", at: str = AT) -> None:
    """Record a failure of a clip."""
    content = run.task(clip_id).fingerprint.as_json()
    path = run.paths.clip(clip_id).failure
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"clip_id": clip_id, "class": kind, "message": "", "at": at, "content": content}))


def test_clips_are_sorted_and_those_without_prompt_are_left_out(run: MemoryRun) -> None:
    run.write_source("a-unprompted", b"x")
    run.write_source("day 1/z", b"x")
    plan = run.plan()
    assert [clip.clip_id for clip in plan.clips] == ["a", "b", "c", "day 1/z"]
    assert plan.without_prompt == ("a-unprompted",)
    assert plan.paths == run.paths
    assert run.works() == dict.fromkeys(["a", "b", "c", "day 1/z"], "all")


def test_unusable_clips_are_counted_and_the_first_are_named(run: MemoryRun) -> None:
    def lines(count: int) -> list[str]:
        return replace(run.plan(), unusable={f"x{number}": f"x{number} is empty" for number in range(count)}).skipped

    assert lines(0) == []
    assert lines(1) == ["skipped because they cannot be used: 1 clip", "  x0 is empty"]
    assert lines(7) == [
        "skipped because they cannot be used: 7 clips",
        *(f"  x{number} is empty" for number in range(5)),
        "  … and 2 more",
    ]


def test_only_selected_clips_are_planned(run: MemoryRun) -> None:
    plan = run.plan(selection=Selection(exclude="b", limit=1, start_seconds=2.0))
    assert [(clip.clip_id, clip.start_seconds) for clip in plan.clips] == [("a", 2.0)]


def test_run_without_any_prompt_is_refused(tmp_path: Path) -> None:
    run = MemoryRun(tmp_path, {"unprompted": 1, "unprompted2": 1})
    with pytest.raises(ConfigError, match=r"no prompt for any of 1 chosen clip \(of 2 in the dataset\); check dataset"):
        run.plan(selection=Selection(limit=1))


def test_unknown_pattern_is_refused(run: MemoryRun) -> None:
    with pytest.raises(DatasetError, match="matches no clip"):
        run.plan(selection=Selection(include="x"))


def test_run_folder_that_the_system_refuses_is_refused(run: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", refuse)
        with pytest.raises(
            ConfigError,
            match=r"/run cannot be read: no permission; .*; or choose another folder with output.root=FOLDER",
        ):
            run.plan()


# What earlier runs left.


def test_finished_clips_need_nothing(run: MemoryRun) -> None:
    run.finish("a")
    assert run.works() == {"a": "nothing", "b": "all", "c": "all"}
    run.paths.clip("a").result.unlink()
    assert run.works()["a"] == "all", "the file decides, not the ledger"


@pytest.mark.parametrize(
    ("is_ledger_kept", "change", "expected"),
    [
        (True, "touch", "nothing"),
        (True, "content", "all"),
        (True, "prompts", "all"),
        (False, "", "nothing"),
        (False, "touch", "nothing"),
        (False, "content", "all"),
        (False, "prompts", "all"),
        (False, "source gone", "all"),
    ],
)
def test_results_of_changed_clips_are_computed_again(
    run: MemoryRun, monkeypatch: pytest.MonkeyPatch, is_ledger_kept: bool, change: str, expected: str
) -> None:
    run.finish("a")
    plan = run.plan()
    (clip, *_) = plan.clips
    result = run.paths.clip("a").result
    result.unlink()
    digest = hashlib.sha256(clip.source.read_bytes()).hexdigest()
    write_result(result, masks=np.ones((2, 1, 4, 4), dtype=np.bool_), clip=clip, attributes={"source_sha256": digest})
    if not is_ledger_kept:
        shutil.rmtree(run.paths.ledgers)
    if change == "touch":
        os.utime(clip.source, ns=(5, 5))
    elif change == "content":
        run.write_source("a", b"y" * 10)
    elif change == "prompts":
        monkeypatch.setattr("tests.launching.in_memory.BOX", replace(BOX, box=(0, 0, 5, 5)))
    plan = run.plan()
    if change == "source gone":
        clip.source.unlink()
    assert next(task.work.value for task in plan.tasks() if task.clip.clip_id == "a") == expected


def test_result_whose_worker_was_stopped_before_it_recorded_it_is_not_computed_again(run: MemoryRun) -> None:
    paths, ledger = run.paths.clip("a"), Ledger(run.paths, "w")
    earlier = dict.fromkeys(("prompts_sha256", "unnamed_sha256"), "of earlier prompts")
    prompts = run.task("a").fingerprint.as_json() | earlier
    masks = np.zeros((2, 1, 64, 96), dtype=np.bool_)

    def compute() -> None:
        ledger.append("started", clip_id="a", content=run.task("a").fingerprint.digest, work="all")
        sha256 = hashlib.sha256(run.plan().clips[0].source.read_bytes()).hexdigest()
        write_result(paths.result, masks=masks, clip=run.plan().clips[0], attributes={"source_sha256": sha256})

    compute()
    size = paths.result.stat().st_size
    details = {"content": prompts, "file_bytes": size, "is_partial": False}
    ledger.append("done", clip_id="a", summary={}, **details)
    ledger.append("scored", clip_id="a", file_sha256="", scores={})
    assert run.works()["a"] == "all", "its prompts have changed"
    masks = np.zeros((3, 1, 64, 96), dtype=np.bool_)
    compute()
    assert paths.result.stat().st_size != size
    task = run.task("a")
    assert (task.work, task.is_recorded, task.is_scored) == (Work.OVERLAY, False, False)


def test_result_is_complete_although_the_ledgers_were_deleted(run: MemoryRun) -> None:
    sha256 = hashlib.sha256(run.plan().clips[0].source.read_bytes()).hexdigest()
    masks = np.zeros((2, 1, 64, 96), dtype=np.bool_)
    result = run.paths.clip("a").result
    write_result(result, masks=masks, clip=run.plan().clips[0], attributes={"source_sha256": sha256})
    assert run.works()["a"] == "nothing"
    assert run.task("a").is_recorded


def test_damaged_result_of_a_changed_clip_is_computed_again(run: MemoryRun) -> None:
    run.finish("a")  # a text file in place of its result
    os.utime(run.sources / "a.mp4", ns=(5, 5))
    assert run.works()["a"] == "all"


@pytest.mark.parametrize(
    ("kind", "retry", "expected"),
    [
        ("oom", (), "failed before"),
        ("oom", ("oom",), "all"),
        ("oom", ("a",), "all"),
        ("oom", ("all",), "all"),
        ("oom", ("b",), "failed before"),
        ("cancelled", (), "all"),
    ],
)
@pytest.mark.parametrize("at", [AT, "2999-01-01T00:00:00+00:00"])
def test_failed_clips_are_retried_on_request_and_only_once_per_command(
    run: MemoryRun, kind: str, retry: tuple[str, ...], expected: str, at: str
) -> None:
    """Whatever time the clock of the machine showed on which the clip failed."""
    fail(run, kind=kind, at=at)
    plan = run.plan(retry=retry)

    def works(**options: bool) -> dict[str, str]:
        return {task.clip.clip_id: task.work.value for task in plan.tasks(**options)}

    assert works(retries=True) == {"a": expected, "b": "all", "c": "all"}
    assert [task.is_retried for task in plan.tasks(retries=True)] == [expected == "all", False, False]
    plan.request_retries(plan.tasks(retries=True))
    assert works() == {"a": expected, "b": "all", "c": "all"}, "for the workers"
    assert [event["clip_id"] for event in run.events("retry requested")] == (["a"] if expected == "all" else [])
    fail(run, kind=kind, at=at)
    assert works()["a"] == "failed before", "it has failed again, in this command"


def test_clips_that_are_not_retried_keep_their_failures(run: MemoryRun) -> None:
    fail(run, "a", kind="oom")
    fail(run, "b", kind="decode")
    plan = run.plan(retry=("oom",))
    plan.request_retries(plan.tasks(retries=True))
    assert [run.paths.clip(clip_id).failure.exists() for clip_id in "ab"] == [False, True]


def test_task_has_the_time_of_the_latest_event_of_its_clip(run: MemoryRun) -> None:
    assert run.task("a").after == ""
    run.finish("a")
    (done,) = run.events("done")
    assert run.task("a").after == done["at"]
    run.write_source("a", b"another video")
    assert run.task("a").after == run.events("ended")[0]["at"] > done["at"]


def test_clip_that_is_drawn_later_stays_partial(run: MemoryRun) -> None:
    run.finish("a", object_errors={"2": "no mask"})
    run.finish("b")
    assert [run.task(clip_id, overlay=True).is_partial for clip_id in "ab"] == [True, False]


def test_failure_of_a_changed_clip_is_outdated(run: MemoryRun) -> None:
    fail(run)
    run.write_source("a", b"another video")
    assert run.works()["a"] == "all"


def test_failure_without_its_content_does_not_count(run: MemoryRun) -> None:
    path = run.paths.clip("a").failure
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"class": "oom"}))
    assert run.works()["a"] == "all"
    path.write_text("{damaged")
    assert run.works()["a"] == "all"


def test_retry_of_something_unknown_is_refused(run: MemoryRun) -> None:
    with pytest.raises(ConfigError, match=r"retry: x is neither a clip id nor .*: none\nretry: y is neither .*: none$"):
        run.plan(retry=("y", "a", "all", "x"))
    fail(run, "a", kind="oom")
    fail(run, "b", kind="decode")
    with pytest.raises(ConfigError, match=r"retry: write .* failed clips by class: decode \(b\); oom \(a\)$"):
        run.plan(retry=("write", "oom"))
    assert run.plan(retry=("oom", "decode", "c")).config.retry == ("oom", "decode", "c")


def test_attempts_since_the_last_end_come_with_the_task(run: MemoryRun) -> None:
    settings = {"rung": 1, "frame_interval": 1, "lean": False}
    ledger = Ledger(run.paths, "w")
    for clip_id, kind in {"a": "lost", "b": "oom"}.items():
        ledger.append("started", clip_id=clip_id, content=run.task(clip_id).fingerprint.digest, **settings)
        ledger.append("died", clip_id=clip_id, **{"class": kind, "error": ""})

    def attempts(**changes: Any) -> dict[str, list[str | None]]:
        return {task.clip.clip_id: [each.kind for each in task.attempts] for task in run.tasks(**changes)}

    assert attempts() == {"a": ["lost"], "b": ["oom"], "c": []}
    fail(run, "b", kind="oom")
    assert attempts(retry="oom") == {"a": ["lost"], "b": [], "c": []}, "a requested retry starts from the beginning"
    assert [task.clip.clip_id for task in run.tasks(retry="a") if task.is_retried] == ["a"]
    assert attempts(retry="a") == {"a": [], "c": []}
    run.finish("a")
    assert attempts() == {"c": []}


# Results of other videos with the same clip id.


class Moved:
    """Clip "a" is done; then the dataset is copied to another folder, with other modification times."""

    def __init__(self, run: MemoryRun) -> None:
        self.run = run
        run.finish("a")
        run.plan().write(with_sizes=False)
        self.old = run.sources / "a.mp4"
        run.sources = run.folder / "moved"
        self.new = run.write_source("a", b"x" * 10)
        os.utime(self.new, ns=(7, 7))


@pytest.mark.parametrize(
    ("case", "is_refused"),
    [
        ("copied", False),
        ("other content of the same size", True),
        ("other size", True),
        ("other content, no result", False),
        ("other content, the old video is gone", False),
        ("copied, the old video is gone", False),
        ("other size, same modification time", True),
        ("same size and modification time", False),
    ],
)
def test_results_of_another_video_are_not_overwritten(run: MemoryRun, case: str, is_refused: bool) -> None:
    moved = Moved(run)
    if case.startswith("other content"):
        moved.new.write_bytes(b"y" * 10)
    if case.startswith("other size"):
        moved.new.write_bytes(b"x" * 11)
    if case.endswith("no result"):
        run.paths.clip("a").result.unlink()
    if case.endswith("is gone"):
        moved.old.unlink()
    if case.endswith("same modification time") or case.startswith("same size"):
        moved.new.write_bytes(b"y" * (10 if case.startswith("same size") else 11))
        os.utime(moved.new, ns=(7, moved.old.stat().st_mtime_ns))
    if is_refused:
        with pytest.raises(ConfigError, match=r"holds results of .*/sources/a.mp4, which is another video than .*'a'"):
            run.plan()
    else:
        assert run.plan().clips[0].source == moved.new


def test_changed_video_at_the_same_place_is_not_another_video(run: MemoryRun) -> None:
    run.finish("a")
    run.plan().write(with_sizes=False)
    run.write_source("a", b"another video")
    assert run.works()["a"] == "all"


# run.json


def test_run_json_records_the_run(run: MemoryRun) -> None:
    plan = run.plan()
    plan.write(["aot", "run"], with_sizes=False)
    written = read_run_json(run.paths)
    assert written["command"] == ["aot", "run"]
    assert written["config_hash"] == plan.config.hash
    assert written["config"] == json.loads(json.dumps(plan.config.as_composed()))
    assert written["choices"] == plan.config.choices()
    assert written["created"] == written["updated"]
    assert written["clips"] == {clip_id: own.as_json() for clip_id, own in plan.fingerprints.items()}
    assert list(written["clips"]) == ["a", "b", "c"]


def rewrite(run: MemoryRun, **changes: Any) -> dict[str, Any]:
    """Set values in run.json."""
    written = read_run_json(run.paths) | changes
    run.paths.run_json.write_text(json.dumps(written))
    return written


def test_time_of_the_first_command_is_kept(run: MemoryRun) -> None:
    run.plan().write(with_sizes=False)
    rewrite(run, created=AT, updated=AT)
    run.plan().write(with_sizes=False)
    written = read_run_json(run.paths)
    assert written["created"] == AT
    assert written["updated"] > AT


def test_clips_of_earlier_commands_stay_listed_and_changed_ones_are_updated(run: MemoryRun) -> None:
    run.plan().write(with_sizes=False)
    before = read_run_json(run.paths)["clips"]
    run.write_source("b", b"another video")
    plan = run.plan(selection=Selection(include=("b", "c")))
    assert plan.all_clip_ids == ["a", "b", "c"]
    plan.write(with_sizes=False)
    after = read_run_json(run.paths)["clips"]
    assert list(after) == ["a", "b", "c"]
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert after["b"] == plan.fingerprints["b"].as_json()
    assert after["b"]["size"] == len(b"another video")


def test_clips_are_listed_in_order_whichever_command_added_them(run: MemoryRun) -> None:
    run.plan(selection=Selection(include=("b",))).write(with_sizes=False)
    run.write_source("day 1/z", b"x")
    run.plan().write(with_sizes=False)
    assert list(read_run_json(run.paths)["clips"]) == ["a", "b", "c", "day 1/z"]


def test_sizes_are_recorded_on_request_and_kept_while_the_source_is_unchanged(
    run: MemoryRun, headers: dict[str, ClipSize]
) -> None:
    headers |= {"a.mp4": ClipSize(8, 96, 64, 25.0), "b.mp4": ClipSize(9, 96, 64, 25.0)}
    run.plan().write(with_sizes=False)
    assert all("num_frames" not in record for record in read_run_json(run.paths)["clips"].values())
    run.plan().write(with_sizes=True)
    clips = read_run_json(run.paths)["clips"]
    assert {key: clips["a"][key] for key in ("num_frames", "width", "height", "fps")} == {
        "num_frames": 8, "width": 96, "height": 64, "fps": 25.0,
    }  # fmt: skip
    assert "num_frames" not in clips["c"], "its header cannot be read"
    headers.clear()
    run.write_source("b", b"another video")
    plan = run.plan()
    assert plan.sizes == {"a": ClipSize(8, 96, 64, 25.0)}
    plan.write(with_sizes=False)
    clips = read_run_json(run.paths)["clips"]
    assert [clip_id for clip_id, record in clips.items() if "num_frames" in record] == ["a"]


# Shards


def test_shards_have_the_same_cost_not_the_same_number_of_clips(tmp_path: Path, headers: dict[str, ClipSize]) -> None:
    run = MemoryRun(tmp_path, dict.fromkeys("abcde", 10))
    headers |= {f"{name}.mp4": ClipSize(40 if name == "e" else 10, 10, 10, 25.0) for name in "abcde"}
    shards = [run.plan(shard=Shard(number=number, count=2)).shard_clips for number in (1, 2)]
    assert [[clip.clip_id for clip in clips] for clips in shards] == [["e"], ["a", "b", "c", "d"]]
    run.finish("e")
    run.finish("a")
    again = [run.plan(shard=Shard(number=number, count=2)).shard_clips for number in (1, 2)]
    assert again == shards, "whether or not clips are done"
    plan = run.plan(shard=Shard(number=2, count=2))
    assert {task.clip.clip_id: task.work.value for task in plan.tasks()} == {"a": "nothing"} | dict.fromkeys(
        "bcd", "all"
    )
    assert [clip.clip_id for clip in run.plan().shard_clips] == list("abcde")


# Drawings


def write_old(path: Path, ns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, ns=(ns, ns))


def test_missing_drawings(run: MemoryRun) -> None:
    paths, clip = run.paths.clip("a"), run.plan().clips[0]
    points_only = Clip("a", clip.source, (Prompt(1, 0, query_points=((0, 5.0, 5.0),)),))

    def missing(clip: Clip = clip, **outputs: bool) -> list[str]:
        return missing_drawings(run.config(**outputs), clip, paths)

    run.finish("a")
    assert missing() == []
    assert missing(overlay=True) == ["overlay"]
    assert missing(pictures=True) == ["pictures"]
    assert missing(points_only, pictures=True) == [], "there is nothing to show"
    assert missing(report=True) == ["report"]
    assert missing(overlay=True, pictures=True, report=True) == ["overlay", "pictures", "report"]
    write_old(paths.pictures / "frame.png", 1)
    assert missing(pictures=True) == []
    for ns in (5, 9 * 10**18):  # the second one is in the future
        write_old(paths.report.data, ns)
        assert missing(report=True) == ["report"], "of another result"
        os.utime(paths.result, ns=(ns, ns))
        assert missing(report=True) == []
        assert missing(report=True, overlay=True) == ["overlay", "report"], "it includes the overlay"
    assert run.works(overlay=True)["a"] == "overlay"


def test_words_without_a_detector_are_refused(run: MemoryRun) -> None:
    run.write_source("words 1", b"x")
    run.write_source("words 2", b"x")
    with pytest.raises(ConfigError) as caught:
        run.plan()
    assert str(caught.value) == (
        "clip 'words 1', object 1: \"red mug\" is to be found by a detector, but there is none (2 clips with text); "
        "add detector=grounding_dino, or draw boxes with `python -m aot.prompt`"
    )
    assert len(run.plan(detector=part(ColourDetector)).clips) == 5


def test_objects_to_be_found_count_in_the_costs(run: MemoryRun) -> None:
    run.write_source("words", b"x" * 30)
    costs = run.plan(detector=part(ColourDetector)).costs
    assert costs["words"] == 3 * costs["c"]


def test_a_result_by_words_is_current_without_its_ledger(run: MemoryRun) -> None:
    """The result has the boxes that were found; the prompts as they were given are recorded beside them."""
    run.write_source("words", b"x" * 30)
    config = {"detector": part(ColourDetector)}
    clip = run.task("words", **config).clip
    found = replace(clip, prompts=(replace(clip.prompts[0], words=None, box=(1, 2, 30, 40)),))
    digest = hashlib.sha256(b"x" * 30).hexdigest()
    for given, is_current in ((prompts_as_json(clip.prompts), True), ([], False)):
        write_result(
            run.paths.clip("words").result,
            masks=np.ones((2, 1, 4, 4), dtype=np.bool_),
            clip=found,
            attributes={"source_sha256": digest, "prompts": json.dumps(given)},
        )
        assert (run.task("words", **config).work is not Work.ALL) == is_current


class TestTasksOfAnEarlierPlan:
    """A task of a scheduler is handed what its submitter knew, and looks only at its own clips and earlier starts."""

    TASK = "7_1"

    def since(self, run: MemoryRun, planned: list[ClipTask], **options: Any) -> dict[str, Any]:
        tasks = run.context().tasks_since(planned, self.TASK, **options)
        return {task.clip.clip_id: (task.work.value, [attempt.kind for attempt in task.attempts]) for task in tasks}

    def begin(self, run: MemoryRun, clip_id: str, worker: str) -> Ledger:
        ledger = Ledger(run.paths, worker, scheduler_task=worker.partition(".")[0])
        ledger.append("started", **run.task(clip_id).start_fields(Rung(1, 1, lean=False)), host="elsewhere", pid=1)
        return ledger

    def test_nothing_is_read_where_nothing_has_changed(self, run: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
        planned = run.tasks()
        lost = Attempt(Rung(1, 1, lean=False), "lost")
        planned[0] = replace(planned[0], attempts=(lost,))
        for number in range(30):
            self.begin(run, "a", f"7_{number + 2}.elsewhere-1-0")
        context = run.context()
        monkeypatch.setattr(Path, "open", None)
        found = context.tasks_since(planned, self.TASK)
        assert found == planned
        assert found[0].attempts == (lost,)

    def test_attempts_of_earlier_starts_are_added(self, run: MemoryRun) -> None:
        planned = run.tasks()
        planned[0] = replace(planned[0], attempts=(Attempt(Rung(1, 1, lean=False), "crash"),))
        self.begin(run, "a", "7_1.elsewhere-1-0").append("died", clip_id="a", **{"class": "oom", "error": ""})
        self.begin(run, "b", "7_1.elsewhere-1-1")
        assert self.since(run, planned) == {
            "a": ("all", ["crash", "oom"]), "b": ("all", ["lost"]), "c": ("all", []),
        }  # fmt: skip

    def test_clips_that_an_earlier_start_has_done_or_failed_are_finished(self, run: MemoryRun) -> None:
        planned = run.tasks()
        run.finish("a", worker="7_1.elsewhere-1-0")
        self.begin(run, "b", "7_1.elsewhere-1-0")
        fail(run, "b")
        assert self.since(run, planned) == {
            "a": ("nothing", []), "b": ("failed before", []), "c": ("all", []),
        }  # fmt: skip

    @pytest.mark.parametrize("is_ended", [False, True])
    def test_clips_that_others_have_done_or_failed_are_noticed(self, run: MemoryRun, is_ended: bool) -> None:
        planned = run.tasks()
        run.finish("a", worker="other")
        if is_ended:
            end_ledgers(run.paths, ["other"])
        fail(run, "b")
        assert self.since(run, planned) == {
            "a": ("nothing", []), "b": ("failed before", []), "c": ("all", []),
        }  # fmt: skip

    def test_all_is_read_if_the_ledgers_of_an_earlier_start_are_not_found(self, run: MemoryRun) -> None:
        planned = run.tasks()
        self.begin(run, "a", "7_1.elsewhere-1-0")
        end_ledgers(run.paths, ["7_1.elsewhere-1-0"])
        merge_ended_ledgers(run.paths, at_least=1)
        assert self.since(run, planned, is_restarted=True)["a"] == ("all", ["lost"])


@pytest.mark.parametrize("many", [1, 500], ids=["listed", "one by one"])
def test_drawings_are_known_from_the_ledgers_and_the_names_of_files(
    run: MemoryRun, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    """Overlays are not opened: their style is recorded."""
    monkeypatch.setattr("aot.runs.file_states.MANY_CLIPS", many)
    config = run.config(overlay=True, report=True)
    for clip_id, style in {"a": config.overlay.mark, "b": "another", "c": config.overlay.mark}.items():
        run.finish(clip_id)
        clip = run.paths.clip(clip_id)
        for path in (clip.overlay, clip.report.data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        state = clip.result.stat()
        os.utime(clip.report.data, ns=(state.st_mtime_ns, state.st_mtime_ns))
        Ledger(run.paths, "w").append("ended", clip_id=clip_id, state="done", seconds={}, overlay=style)
    assert run.works(overlay=True, report=True) == {"a": "nothing", "b": "overlay", "c": "nothing"}
    run.paths.clip("a").overlay.unlink()
    os.utime(run.paths.clip("c").report.data, (1, 1))
    assert run.works(overlay=True, report=True) == dict.fromkeys("abc", "overlay")
    assert run.works() == dict.fromkeys("abc", "nothing")
    run.paths.clip("b").result.write_text("longer than it was when it was recorded")
    assert run.works()["b"] == "nothing", "its size was not recorded"


def test_command_for_a_shard_looks_only_at_its_own_sources(run: MemoryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of commands for shards would otherwise look at all sources of the dataset, each of them."""
    run.plan().write(with_sizes=False)
    looked_at: list[str] = []
    of = Fingerprint.of
    monkeypatch.setattr(Fingerprint, "of", lambda clip: (looked_at.append(clip.clip_id), of(clip))[1])
    shards = [run.plan(shard=Shard(number=number, count=3)) for number in (1, 2, 3)]
    assert [[clip.clip_id for clip in plan.shard_clips] for plan in shards] == [["c"], ["b"], ["a"]]
    assert looked_at == ["c", "b", "a"]
    for plan in shards:
        plan.write(with_sizes=False)
    before = run.paths.run_json.stat().st_mtime_ns
    shards[0].write(with_sizes=False)
    assert run.paths.run_json.stat().st_mtime_ns == before, "nothing has changed"
    run.write_source("c", b"another video")
    changed = run.plan(shard=Shard(number=1, count=3))
    assert [clip.clip_id for clip in changed.shard_clips] == ["c"]
    changed.write(with_sizes=False)
    assert read_run_json(run.paths)["clips"]["c"]["size"] == len(b"another video")


def test_style_that_was_drawn_before_the_result_is_not_believed(run: MemoryRun) -> None:
    mark = run.config().overlay.mark
    Ledger(run.paths, "w").append("ended", clip_id="a", state="done", seconds={}, overlay=mark)
    run.finish("a")
    overlay = run.paths.clip("a").overlay
    overlay.parent.mkdir(parents=True)
    overlay.touch()
    assert run.works(overlay=True)["a"] == "overlay"


def test_large_dataset_with_the_id_of_a_clip_in_that_of_another(run: MemoryRun) -> None:
    """Of few clips, the ledgers are searched for their ids before they are parsed."""
    for clip_id in ("aa", "a b", 'a"quoted', "\u00e4"):
        run.write_source(clip_id, b"x")
    for clip_id in ("a", "aa", "a b", 'a"quoted', "\u00e4"):
        started = run.task(clip_id).start_fields(Rung(1, 1, lean=False))
        Ledger(run.paths, "w").append("started", **started)
        Ledger(run.paths, "w").append("died", clip_id=clip_id, **{"class": "lost", "error": ""})
    attempts = {task.clip.clip_id: len(task.attempts) for task in run.tasks()}
    assert attempts == {"a": 1, "aa": 1, "a b": 1, 'a"quoted': 1, "\u00e4": 1, "b": 0, "c": 0}
