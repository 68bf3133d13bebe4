"""The worker with a computation that is scripted: attempts, what is recorded of them, and what follows an error.

tests/launching/test_ladder.py has complete runs over real videos.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
import types
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from aot.decoding.pyav import PyAVDecoder
from aot.errors import DecodeError, OutOfMemory, TrackingError, WriteError
from aot.launching import worker as worker_module
from aot.launching.worker import BrokenProcess, Worker
from aot.pipeline import ClipSummary, OnProgress, Parts, ReadingAhead, Settings
from aot.retry import Attempt, Rung, ladder
from aot.runs.ledger import Ledger
from aot.runs.summary import summary_rows
from aot.runs.task import ClipTask, Work
from aot.runs.timing import worker_times
from aot.types import Clip
from tests.fakes import BoxSegmenter, CentreSampler, StillTracker
from tests.launching.in_memory import ListedClips, MemoryRun, part, summary_of
from tests.results import write_result

RELEASE_MEMORY = worker_module.release_memory


class Computed(MemoryRun):
    """A run of clips whose computation is scripted.

    Attributes:
        outcomes: clip id → what its first, second, … attempt raises, or calls if it can be called; the others succeed.
        settings: of every attempt.
        drawn: what was drawn: name of the drawing and clip id.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {"a": 10, "b": 20})
        self.outcomes: dict[str, list[Any]] = {}
        self.summary: dict[str, Any] = {}
        self.settings: list[Settings] = []
        self.parts: list[Parts] = []
        self.drawn: list[tuple[str, str]] = []
        self.received: list[dict[str, Any]] = []
        self.workers: list[Worker] = []
        self.reads_ahead = False

    def process(
        self,
        clip: Clip,
        parts: Parts,
        settings: Settings,
        paths: Any,
        on_progress: OnProgress,
        ahead: ReadingAhead,
    ) -> ClipSummary:
        self.settings.append(settings)
        self.parts.append(parts)
        on_progress("track", 0.5)
        if self.reads_ahead:
            assert ahead.take() is None
            ahead.start(99)
        outcomes = self.outcomes.get(clip.clip_id)
        outcome = outcomes.pop(0) if outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        if outcome is not None:
            outcome(paths)
        write(paths.result)
        return ClipSummary(clip_id=clip.clip_id, **(summary_of() | self.summary))

    def worker(self, **changes: Any) -> Worker:
        worker = Worker(
            self.context(**changes), name="w", scheduler_task="7_1", on_event=self.received.append, process=self.process
        )
        self.workers.append(worker)
        return worker

    def attempt(self, clip_id: str = "a", *, attempts: tuple[Attempt, ...] = (), **changes: Any) -> None:
        self.worker(**changes).run(replace(self.task(clip_id, **changes), attempts=attempts))

    def rungs(self) -> list[int]:
        return [settings.rung for settings in self.settings]

    def log(self) -> str:
        return self.paths.log("w").read_text()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Computed]:
    run = Computed(tmp_path)
    # Collecting the garbage of a large process takes a tenth of a second.
    monkeypatch.setattr(worker_module, "release_memory", lambda: None)
    monkeypatch.setattr(
        worker_module, "_make_drawing", lambda drawing, clip, *others: run.drawn.append((drawing, clip.clip_id))
    )
    yield run
    for worker in run.workers:
        worker.close()


def write(path: Path, text: str = "in place of a result") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_finished_clip_is_recorded(run: Computed) -> None:
    stages: list[tuple[str, float]] = []
    task = run.task()
    run.worker().run(task, lambda stage, fraction: stages.append((stage, fraction)))
    assert stages == [("track", 0.5), ("score", 0.0)]
    started, done, drawing, scored, ended = run.events()
    assert json.loads(json.dumps(run.received)) == [started, done, drawing, scored, ended]
    assert {event["worker"] for event in run.received} == {"w"}
    assert {event["task"] for event in run.received} == {"7_1"}
    assert {key: started[key] for key in "event clip_id content work rung frame_interval lean".split()} == {
        "event": "started", "clip_id": "a", "content": task.fingerprint.digest, "work": "all", "rung": 1,
        "frame_interval": 1, "lean": False,
    }  # fmt: skip
    assert (done["event"], done["clip_id"]) == ("done", "a")
    assert done["content"] == task.fingerprint.as_json()
    assert done["file_bytes"] == len("in place of a result")
    assert scored["file_sha256"] == hashlib.sha256(b"in place of a result").hexdigest()
    expected = json.loads(json.dumps({"clip_id": "a"} | summary_of()))
    assert {key: done["summary"][key] for key in expected} == expected
    assert (drawing["event"], drawing["work"]) == ("started", "overlay")
    assert (scored["event"], scored["scores"]) == ("scored", {})
    assert (ended["event"], ended["clip_id"], ended["state"]) == ("ended", "a", "done")
    assert list(ended["seconds"]) == ["score"]
    assert "INFO aot.worker: a: started (all)\n" in run.log()
    assert run.log().endswith("INFO aot.worker: a: done\n")


def test_settings_and_provenance_of_an_attempt(run: Computed) -> None:
    run.attempt(frame_interval=3, return_check=True)
    (settings,) = run.settings
    assert (settings.frame_interval, settings.frame_interval_requested, settings.lean) == (3, 3, False)
    assert settings.return_check
    assert settings.sample_fps is None
    assert settings.attempts == ()
    provenance = settings.provenance
    config = run.config(frame_interval=3, return_check=True)
    assert provenance["config_hash"] == config.hash
    assert yaml.safe_load(provenance["config_yaml"]) == config.as_composed()
    assert json.loads(provenance["versions"])["python"] == ".".join(map(str, sys.version_info[:3]))


def test_sampling_by_time_is_a_setting_of_every_attempt(run: Computed) -> None:
    run.outcomes["a"] = [OutOfMemory("no memory")] * 2
    run.attempt(sample_fps=2.5)
    assert [(each.frame_interval, each.sample_fps) for each in run.settings] == [(1, 2.5), (1, 2.5), (2, 2.5)]
    assert yaml.safe_load(run.settings[-1].provenance["config_yaml"])["sample_fps"] == 2.5


def test_parts_are_built_once(run: Computed) -> None:
    worker = run.worker()
    for task in run.tasks():
        worker.run(task)
    first, second = run.parts
    assert first is second
    assert [type(each) for each in (first.segmenter, first.query_sampler, first.tracker)] == [
        BoxSegmenter, CentreSampler, StillTracker,
    ]  # fmt: skip


OOM, WRITE = OutOfMemory("no memory"), WriteError("disk full")


@pytest.mark.parametrize(
    ("errors", "rungs", "failed"),
    [
        ([], [1], None),
        ([OOM], [1, 2], None),
        ([OOM, OOM, OOM], [1, 2, 3, 4], None),
        ([OOM] * 9, [1, 2, 3, 4], "oom"),
        ([WRITE], [1, 1], None),
        ([WRITE, WRITE], [1, 1], "write"),
        ([WRITE, OOM], [1, 1, 2], None),
        ([OOM, WRITE, OOM], [1, 2, 2, 3], None),
        ([TrackingError("no")], [1], "tracking"),
        ([DecodeError("no")], [1], "decode"),
        ([ZeroDivisionError("no")], [1], "unexpected"),
        ([OOM, TrackingError("no")], [1, 2], "tracking"),
    ],
)
def test_attempts_that_follow_an_error(
    run: Computed, errors: list[Exception], rungs: list[int], failed: str | None
) -> None:
    run.outcomes["a"] = [*errors]
    run.attempt()
    assert run.rungs() == rungs
    used = ladder(1, 4)
    assert [(each.frame_interval, each.lean) for each in run.settings] == [
        (used[number - 1].frame_interval, used[number - 1].lean) for number in rungs
    ]
    assert [event["rung"] for event in run.events("started") if event["work"] == "all"] == rungs
    kinds = [getattr(error, "kind", "unexpected") for error in errors[: len(rungs)]]
    assert [event["class"] for event in run.events("attempt failed")] == kinds
    (ended,) = run.events("ended")
    assert ended["state"] == ("failed" if failed else "done")
    if failed:
        assert run.failure("a")["class"] == failed
        assert run.failed_attempts("a") == list(zip(rungs, kinds))
        assert run.failure("a")["frame_interval"] == used[rungs[-1] - 1].frame_interval
    else:
        assert not run.paths.clip("a").failure.exists()
        assert [(each.rung.number, each.kind) for each in run.settings[-1].attempts] == list(zip(rungs, kinds))


def test_attempts_of_earlier_processes_count(run: Computed) -> None:
    earlier = (Attempt(Rung(1, 1, False), "oom", "no memory"), Attempt(Rung(2, 1, True), "lost", "killed"))
    run.outcomes["a"] = [OOM]
    run.attempt(attempts=earlier)
    assert run.rungs() == [2, 3]
    assert run.settings[0].attempts == earlier


def test_clip_without_an_attempt_left_fails_at_once(run: Computed) -> None:
    crash = Attempt(Rung(1, 1, False), "crash", "killed by SIGSEGV")
    run.attempt(attempts=(crash, crash))
    assert run.settings == []
    failure = run.failure("a")
    assert (failure["class"], failure["message"], failure["stage"], failure["traceback"]) == (
        "crash", "killed by SIGSEGV", None, "",
    )  # fmt: skip


def test_prediction_of_memory_is_not_asked_on_the_last_rung(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "available_bytes", lambda tracker: (type(tracker), 123))
    run.outcomes["a"] = [OOM] * 3
    run.attempt()
    *others, last = [settings.available_bytes for settings in run.settings]
    assert last is None
    assert [each and each() for each in others] == [(StillTracker, 123)] * 3


def test_failure_has_all_that_is_known(run: Computed) -> None:
    error = TrackingError("the points were lost; use another tracker")
    error.stage = "track"
    run.outcomes["a"] = [error]
    run.attempt(frame_interval=2)
    failure = run.failure("a")
    assert (failure["class"], failure["stage"], failure["message"]) == ("tracking", "track", str(error))
    assert failure["frame_interval"] == 2
    assert failure["content"] == run.task(frame_interval=2, retry="all").fingerprint.as_json()
    assert failure["source"] == str(run.sources / "a.mp4")
    assert failure["log"] == str(run.paths.log("w"))
    assert failure["traceback"].splitlines()[-1].endswith(f"TrackingError: {error}")
    assert "in process" in failure["traceback"]
    assert "ERROR aot.worker: a: rung 1 failed in stage track: the points were lost" in run.log()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError(), "ZeroDivisionError"),
        (KeyError("x"), "'x'"),
        (FileNotFoundError(2, "No such file", "/data/a.png"), "/data/a.png: no such file or folder"),
        (OSError(5, "Input/output error"), "a file: "),
    ],
)
def test_messages_of_unexpected_errors(run: Computed, error: Exception, message: str) -> None:
    run.outcomes["a"] = [error]
    run.attempt()
    assert run.failure("a")["message"].startswith(message)
    assert run.failure("a")["class"] == "unexpected"


class Ahead:
    """Records what a worker does with its thread that reads ahead."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, task: ClipTask, decoder: Any, available_bytes: int) -> None:
        self.calls.append(("start", task.clip.clip_id, type(decoder), available_bytes))

    def take(self, task: ClipTask) -> None:
        self.calls.append(("take", task.clip.clip_id))

    def drop(self) -> None:
        self.calls.append(("drop",))

    def close(self) -> None:
        self.calls.append(("close",))


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Ahead:
    ahead = Ahead()
    monkeypatch.setattr(worker_module, "ReadAhead", lambda *_: ahead)
    return ahead


TAKE, START = ("take", "a"), ("start", "b", PyAVDecoder, 99)


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ([], [TAKE, START]),
        ([OOM], [TAKE, START, ("drop",)]),
        ([TrackingError("no")], [TAKE, START, ("drop",)]),
    ],
)
def test_only_the_first_attempt_is_read_ahead_and_reads_ahead(
    run: Computed, ahead: Ahead, errors: list[Exception], calls: list[Any]
) -> None:
    run.outcomes["a"] = [*errors]
    run.reads_ahead = True
    worker = run.worker()
    worker.run(run.task("a"), following=run.task("b"))
    assert ahead.calls == calls
    worker.close()
    assert ahead.calls == [*calls, ("close",)]


@pytest.mark.parametrize("suspect", ["a", "b"])
def test_a_suspect_is_neither_read_ahead_nor_beside_another(run: Computed, ahead: Ahead, suspect: str) -> None:
    run.reads_ahead = True
    first, second = (replace(task, is_suspect=task.clip.clip_id == suspect) for task in run.tasks())
    run.worker().run(first, following=second)
    assert ahead.calls == [TAKE]


def test_other_clips_continue_after_a_failure(run: Computed) -> None:
    run.outcomes["a"] = [DecodeError("no")]
    worker = run.worker()
    for task in run.tasks():
        worker.run(task)
    assert run.works() == {"a": "failed before", "b": "nothing"}


def test_failure_is_removed_by_a_later_success(run: Computed) -> None:
    run.outcomes["a"] = [DecodeError("no")]
    run.attempt()
    assert run.paths.clip("a").failure.exists()
    run.attempt(retry="a")
    assert not run.paths.clip("a").failure.exists()


def test_failed_objects_make_the_clip_partial(run: Computed) -> None:
    run.summary = {"object_errors": {2: "no mask"}}
    run.attempt()
    assert run.events("ended")[0]["state"] == "partial"
    assert "WARNING aot.worker: a: object 2 failed: no mask\n" in run.log()
    assert run.log().endswith("a: partial\n")


def test_drawings_of_an_earlier_result_are_removed(run: Computed) -> None:
    paths = run.paths.clip("a")
    drawings = (paths.overlay, paths.pictures / "1.png", paths.report.data)
    other = write(paths.pictures / "notes.txt")
    for path in drawings:
        write(path)
    run.attempt()
    assert not any(path.exists() for path in drawings)
    assert other.exists()


def test_report_of_a_clip_is_removed_before_its_other_drawings_change(run: Computed) -> None:
    paths = run.paths.clip("a")
    run.finish("a")
    write(paths.report.data)
    run.worker().run(run.task())
    assert paths.report.data.exists(), "nothing is drawn"
    run.worker(overlay=True).run(run.task(overlay=True))
    assert run.drawn == [("overlay", "a")]
    assert not paths.report.data.exists(), "a later command with a report would show the old overlay"


def test_missing_drawings_are_made_after_the_result(run: Computed) -> None:
    stages: list[str] = []
    changes = {"overlay": True, "pictures": True, "report": True}
    (task, _) = run.tasks(**changes)
    run.worker(**changes).run(task, lambda stage, fraction: stages.append(stage))
    assert run.drawn == [("overlay", "a"), ("pictures", "a"), ("report", "a")]
    assert stages == ["track", "score", "overlay", "pictures", "report"]
    assert list(run.events("ended")[0]["seconds"]) == ["score", "overlay", "pictures", "report"]


def test_worker_that_leaves_the_drawing_ends_with_the_result(run: Computed) -> None:
    changes = {"overlay": True, "evaluate": True}
    worker = Worker(
        run.context(**changes), name="w", on_event=run.received.append, leaves_drawing=True, process=run.process
    )
    run.workers.append(worker)
    worker.run(run.task(**changes))
    assert run.drawn == []
    assert [event["event"] for event in run.events()] == ["started", "done"]
    task = run.task(**changes)
    assert (task.work, task.is_scored) == (Work.OVERLAY, False)
    worker.run(task)
    assert run.drawn == [("overlay", "a")]
    assert [event["event"] for event in run.events()] == ["started", "done", "started", "scored", "ended"]
    task = run.task(**changes)
    assert (task.work, task.is_scored) == (Work.OVERLAY, True), "the drawing is scripted: there is no file"
    worker.run(task)
    assert len(run.events("scored")) == 1


def test_clip_without_drawings_is_scored_by_the_next_command(run: Computed) -> None:
    worker = Worker(run.context(), name="w", leaves_drawing=True, process=run.process)
    run.workers.append(worker)
    worker.run(run.task())
    assert run.works()["a"] == "overlay"
    worker.run(run.task())
    assert run.works()["a"] == "nothing"
    assert run.events("scored")[0]["file_sha256"] == hashlib.sha256(b"in place of a result").hexdigest()


def test_failure_of_an_earlier_attempt_is_removed_with_the_result(run: Computed) -> None:
    """Before the result is reported: afterwards, a drawer may record a failure of its own."""
    write(run.paths.clip("a").failure, json.dumps({"class": "tracking", "content": {}}))
    existed: list[bool] = []
    worker = Worker(
        run.context(),
        name="w",
        on_event=lambda event: existed.append(run.paths.clip("a").failure.exists()),
        leaves_drawing=True,
        process=run.process,
    )
    run.workers.append(worker)
    worker.run(run.task())
    assert existed == [True, False]


def test_result_that_was_not_recorded_is_recorded_by_the_next_command(run: Computed) -> None:
    """Its worker was stopped after it had written the file."""
    task = run.task()
    ledger = Ledger(run.paths, "stopped")
    ledger.append("started", clip_id="a", content=task.fingerprint.digest, work="all", rung=2, frame_interval=1)
    attempts = [
        {"rung": 1, "frame_interval": 1, "lean": False, "class": "out_of_memory", "error": "too large"},
        {"rung": 2, "frame_interval": 1, "lean": True, "class": None, "error": None},
    ]
    facts = {
        "source_sha256": hashlib.sha256(task.clip.source.read_bytes()).hexdigest(),
        "attempts": json.dumps(attempts), "seconds": json.dumps({"track": 1.5, "segment": 0.5}), "checks": "{}",
        "peak_device_bytes": "{}", "notes": '["a note"]', "decoder": "pyav", "decoder_fallback": "odd size",
    }  # fmt: skip
    masks = np.ones((3, 1, 48, 64), dtype=np.bool_)
    write_result(run.paths.clip("a").result, masks=masks, queries=[(0, 5, 5, 1)], clip=task.clip, attributes=facts)
    run.worker().run(run.task())
    assert run.settings == [], "it is not computed again"
    assert [event["event"] for event in run.events()] == ["started", "started", "taken up", "scored", "ended"]
    (row,) = summary_rows(run.paths, ["a"])
    shown = {
        name: row[name] for name in "state points frames rung attempts in_mask seconds track_seconds notes".split()
    }
    assert shown == {
        "state": "done", "points": 1, "frames": 3, "rung": 2, "attempts": 2, "in_mask": 1.0, "seconds": 2.0,
        "track_seconds": 1.5, "notes": "a note",
    }  # fmt: skip
    assert run.works()["a"] == "nothing"
    assert not worker_times(run.paths).by_worker, "the worker that drew it has not computed it"


def test_finished_clip_is_only_drawn(run: Computed) -> None:
    run.attempt()
    write(run.paths.clip("a").failure, json.dumps({"class": "write", "content": {}}))
    run.settings.clear()
    task = run.task(overlay=True)
    assert task.work is Work.OVERLAY
    run.worker(overlay=True).run(task)
    assert run.settings == []
    assert run.drawn == [("overlay", "a")]
    started, ended = run.events("started", "ended")[3:]
    assert (started["work"], ended["state"]) == ("overlay", "done")
    assert not run.paths.clip("a").failure.exists()


def test_clip_that_cannot_be_drawn_fails_and_keeps_its_result(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise WriteError("disk full")

    monkeypatch.setattr(worker_module, "_make_drawing", fail)
    run.attempt(overlay=True)
    assert run.paths.clip("a").result.exists()
    assert run.failed_attempts("a") == [(1, "write")]
    (ended,) = run.events("ended")
    assert (ended["state"], ended["message"]) == ("failed", "disk full")
    assert run.settings[0].rung == 1
    assert len(run.settings) == 1, "the result is not computed again"


def test_clip_that_another_worker_has_drawn_meanwhile_is_done(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        write(run.paths.clip("a").pictures / "1.png")
        raise WriteError("the part file was deleted")

    monkeypatch.setattr(worker_module, "_make_drawing", fail)
    run.attempt(pictures=True)
    assert not run.paths.clip("a").failure.exists()
    assert [(event["event"], event.get("state")) for event in run.events("attempt failed", "ended")] == [
        ("attempt failed", None),
        ("ended", "done"),
    ]


def test_clip_that_was_not_scored_fails_although_its_drawings_exist(
    run: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> str:
        raise OSError(5, "Input/output error", "a.h5")

    monkeypatch.setattr(worker_module, "sha256_of", fail)
    run.attempt()
    assert run.paths.clip("a").failure.exists()


@pytest.mark.parametrize(("drawing", "function"), [
    ("overlay", "draw_clip"), ("pictures", "write_prompt_images"), ("report", "report_clip"),
])  # fmt: skip
def test_drawings_by_name(drawing: str, function: str, run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    called: list[tuple[str, Any]] = []
    spent = {"score": 1.0}
    for name in ("draw_clip", "write_prompt_images", "report_clip"):
        monkeypatch.setattr(worker_module, name, lambda *arguments, name=name: called.append((name, arguments[-1])))
    worker_module._make_drawing(drawing, run.task().clip, run.paths.clip("a"), run.config(), spent)
    ((name, last),) = called
    assert name == function
    assert last is spent or drawing != "report", "the page of the clip shows the time of its drawings"


def test_clip_that_another_worker_has_finished_is_done(run: Computed) -> None:
    def finish_elsewhere(paths: Any) -> None:
        write(paths.result)
        raise WriteError("disk full")

    run.outcomes["a"] = [finish_elsewhere]
    run.attempt()
    assert len(run.settings) == 1
    assert [event["event"] for event in run.events()] == ["started", "attempt failed", "ended"]
    assert run.events("ended")[0]["state"] == "done"
    assert not run.paths.clip("a").failure.exists()


def test_error_after_the_own_result_is_written_is_no_success_of_another_worker(run: Computed) -> None:
    (run.paths.clip("a").overlay / "in the way").mkdir(parents=True)
    run.attempt()
    assert run.failed_attempts("a") == [(1, "write"), (1, "write")]
    assert run.events("ended")[0]["state"] == "failed"


def test_unchanged_earlier_result_is_no_success(run: Computed) -> None:
    write(run.paths.clip("a").result, "of another video")
    run.outcomes["a"] = [TrackingError("no")]
    run.attempt()
    assert run.events("ended")[0]["state"] == "failed"


def test_user_can_interrupt(run: Computed) -> None:
    run.outcomes["a"] = [KeyboardInterrupt()]
    worker, task = run.worker(), run.task()
    with pytest.raises(KeyboardInterrupt):
        worker.run(task)
    assert [event["event"] for event in run.events()] == ["started"]
    worker.record_interruption(task)
    event = run.events("interrupted")[0]
    assert (event["clip_id"], event["reason"], event["is_counted"]) == ("a", "stopped by the user", False)
    assert run.task().attempts == ()


def test_dead_cuda_context_ends_the_process_and_counts_as_a_crash(
    run: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "broken_cuda", lambda: "an illegal memory access was encountered")
    run.outcomes["a"] = [TrackingError("no")]
    with pytest.raises(BrokenProcess, match=r"is dead \(an illegal memory access was encountered\) after: no"):
        run.attempt()
    (event,) = run.events("attempt failed")
    assert event["class"] == "crash"
    assert "illegal memory access" in event["error"]
    assert run.events("ended") == []


class FakeCuda:
    """Stands in for `torch.cuda`."""

    def __init__(self, *, is_used: bool = True, error: str | None = None) -> None:
        self.is_used = is_used
        self.error = error
        self.num_emptied = 0

    def is_initialized(self) -> bool:
        return self.is_used

    def synchronize(self) -> None:
        if self.error is not None:
            raise RuntimeError(self.error)

    def empty_cache(self) -> None:
        self.num_emptied += 1


@pytest.mark.parametrize(
    ("cuda", "reason", "num_emptied"),
    [
        (FakeCuda(), None, 1),
        (FakeCuda(is_used=False, error="not asked"), None, 0),
        (FakeCuda(error="CUDA error: illegal access\nCompile with …"), "CUDA error: illegal access", 0),
        (None, None, 0),
    ],
)
def test_device_memory_is_freed_after_a_failed_attempt(
    run: Computed, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda | None, reason: str | None, num_emptied: int
) -> None:
    torch = None if cuda is None else types.SimpleNamespace(cuda=cuda)
    monkeypatch.setitem(sys.modules, "torch", torch)  # type: ignore[arg-type]
    assert worker_module.broken_cuda() == reason
    RELEASE_MEMORY()
    assert cuda is None or cuda.num_emptied == num_emptied


class Large:
    """Stands for the tensors of an attempt."""


def test_memory_of_an_attempt_is_free_when_the_next_one_starts(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    references: list[weakref.ref[Large]] = []
    alive_later: list[bool] = []

    def run_out(paths: Any) -> None:
        alive_later.extend(reference() is not None for reference in references)
        large = Large()
        large.itself = large  # type: ignore[attr-defined]  # as models are: only the garbage collector frees it
        references.append(weakref.ref(large))
        raise OutOfMemory("no memory")

    run.outcomes["a"] = [run_out, run_out]
    monkeypatch.setattr(worker_module, "release_memory", RELEASE_MEMORY)
    run.attempt()
    assert alive_later == [False]


class Scores:
    """Stands for the scores of a clip."""

    def as_row(self) -> dict[str, Any]:
        return {"J": 0.5}


class ScoredClips(ListedClips):
    """Has a ground truth for clip "a"; that of "b" cannot be read."""

    num_built = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        ScoredClips.num_built += 1

    def ground_truth(self, clip_id: str) -> Any:
        if clip_id == "b":
            raise OSError(13, "Permission denied", "/truth/b.png")
        return "truth of a"


def test_clips_are_scored_and_errors_of_scoring_do_not_fail_them(
    run: Computed, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr(worker_module, "evaluate_clip", lambda *arguments: (given.append(arguments), Scores())[1])
    dataset = part(ScoredClips, folder=run.sources)
    tasks = run.tasks(dataset=dataset)
    worker = run.worker(dataset=dataset, evaluate=True)
    ScoredClips.num_built = 0
    for task in tasks:
        worker.run(task)
    assert given == [(run.paths.clip("a").result, "truth of a")]
    a, b = (event["scores"] for event in run.events("scored"))
    assert a == {"J": 0.5}
    assert b["error"].startswith("cannot be scored: /truth/b.png cannot be read")
    assert "WARNING aot.worker: b: cannot be scored: " in run.log()
    assert [event["state"] for event in run.events("ended")] == ["done", "done"]
    assert ScoredClips.num_built == 1


def test_clips_are_not_scored_without_output_evaluate(run: Computed) -> None:
    run.attempt("b", dataset=part(ScoredClips, folder=run.sources))
    assert run.events("scored")[0]["scores"] == {}


def test_clip_without_ground_truth_has_no_scores(run: Computed) -> None:
    run.attempt(evaluate=True)
    assert run.events("scored")[0]["scores"] == {}


def test_failure_that_cannot_be_recorded_is_a_write_error(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Ledger, event: str, **details: Any) -> None:
        raise WriteError("disk full")

    run.outcomes["a"] = [TrackingError("no")]
    worker, task = run.worker(), run.task()
    monkeypatch.setattr(Ledger, "append", fail)
    with pytest.raises(WriteError, match="disk full"):
        worker.run(task)


class FullDisk(io.StringIO):
    """A file on a full disk."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        super().close()
        raise OSError(28, "No space left on device")


def test_log_ignores_a_full_disk(run: Computed, capsys: pytest.CaptureFixture[str]) -> None:
    worker = run.worker()
    worker._handler.setStream(FullDisk())
    worker.run(run.task())
    worker.close()
    assert run.works()["a"] == "nothing"
    assert capsys.readouterr().err == ""


def test_log_is_closed_with_the_worker(run: Computed) -> None:
    before = list(logging.getLogger("aot").handlers)
    worker = run.worker()
    assert len(logging.getLogger("aot").handlers) == len(before) + 1
    worker.close()
    assert logging.getLogger("aot").handlers == before


def test_worker_names_itself_after_host_and_process(run: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")
    worker = Worker(run.context(), process=run.process)
    run.workers.append(worker)
    worker.run(run.task())
    assert {event["worker"] for event in run.events()} == {f"n7-{os.getpid()}"}
    assert run.paths.log(f"n7-{os.getpid()}").is_file()
