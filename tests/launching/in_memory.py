"""Runs without models and without processes: a dataset of small files, a plan, and what is recorded.

Complete runs over real videos are in tests/faults and tests/test_run.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aot.config import GROUPS, Ladder, Output, PartConfig, RunConfig, Selection
from aot.decoding.pyav import PyAVDecoder
from aot.detection.none import NoDetector
from aot.launching.base import Preview
from aot.launching.plan import Plan, RunContext, make_plan
from aot.paths import RunPaths
from aot.runs.ledger import Ledger, read_events
from aot.runs.task import ClipTask
from aot.types import Clip, Prompt, Words
from tests.fakes import BoxSegmenter, CentreSampler, StillTracker

BOX = Prompt(1, 0, name="square", box=(8, 20, 28, 40))
WORDS = Prompt(1, 0, name="mug", words=Words("red mug", (0,), count=3))


class ListedClips:
    """A dataset: one clip per file below a folder, with one box prompt; clips named "unprompted" have none, and those
    named "words" have three objects to be found by a detector.

    Args:
        folder: of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def clips(self) -> list[Clip]:
        sources = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [
            Clip(clip_id, path, () if "unprompted" in clip_id else (WORDS if "words" in clip_id else BOX,))
            for path in sources
            for clip_id in [path.relative_to(self.folder).with_suffix("").as_posix()]
        ]

    def ground_truth(self, clip_id: str) -> None:
        return None


class FakeLauncher:
    """Calls `work(plan, tasks)` where a launcher waits for its workers.

    Args:
        work: None: `launch` returns None, as a launcher that does not wait.
        divides_work: as of a launcher.
        launch_error: raised by `launch`.
        strict: as of a launcher.
    """

    def __init__(
        self,
        work: Any = None,
        divides_work: bool = False,
        launch_error: Exception | None = None,
        strict: bool = False,
    ) -> None:
        self.is_strict = strict
        self.work = work
        self.divides_work = divides_work
        self.launch_error = launch_error

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Any:
        if self.launch_error is not None:
            raise self.launch_error
        return None if self.work is None else lambda: self.work(plan, tasks)

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        return Preview([[task.clip.clip_id for task in tasks]], max_workers=1, available_bytes=None)


def part(target: type, **arguments: Any) -> PartConfig:
    return PartConfig(name=target.__name__, target=f"{target.__module__}.{target.__qualname__}", arguments=arguments)


class MemoryRun:
    """A dataset of small files and the run folder of its clips.

    Args:
        folder: an empty folder.
        sizes: bytes of every clip's file, by clip id.
    """

    def __init__(self, folder: Path, sizes: Mapping[str, int]) -> None:
        self.folder = folder
        self.sources = folder / "sources"
        self.paths = RunPaths(folder / "run")
        for clip_id, size in sizes.items():
            self.write_source(clip_id, b"x" * size)
        self.paths.root.mkdir(parents=True, exist_ok=True)
        self.paths.run_json.write_text('{"config_hash": "", "clips": {}}')

    def write_source(self, clip_id: str, content: bytes) -> Path:
        path = self.sources / f"{clip_id}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def config(self, **changes: Any) -> RunConfig:
        """A configuration without drawings; `changes` are fields of RunConfig, or of `Output`."""
        outputs = dict.fromkeys(("overlay", "pictures", "report", "evaluate", "return_check"), False) | {"group": None}
        outputs |= {name: changes.pop(name) for name in list(changes) if name in outputs}
        parts: dict[str, Any] = {
            "dataset": part(ListedClips, folder=self.sources),
            "decoder": part(PyAVDecoder),
            "detector": part(NoDetector),
            "segmenter": part(BoxSegmenter),
            "query_points": part(CentreSampler),
            "tracker": part(StillTracker),
            "launcher": part(FakeLauncher),
        }
        assert tuple(parts) == GROUPS
        fields = parts | {
            "frame_interval": 1, "selection": Selection(), "ladder": Ladder(max_frame_interval=4),
            "output": Output(root=self.folder / "outputs", **outputs),
        }  # fmt: skip
        return RunConfig(**(fields | changes))

    def plan(self, **changes: Any) -> Plan:
        return make_plan(self.config(**changes), self.paths.root)

    def context(self, **changes: Any) -> RunContext:
        return self.plan(**changes).context

    def task(self, clip_id: str = "a", **changes: Any) -> ClipTask:
        return next(task for task in self.plan(**changes).tasks(retries=True) if task.clip.clip_id == clip_id)

    def tasks(self, **changes: Any) -> list[ClipTask]:
        """The clips that need work."""
        return [task for task in self.plan(**changes).tasks(retries=True) if task.is_pending]

    def works(self, **changes: Any) -> dict[str, str]:
        """What every clip still needs, as the name of its work."""
        return {task.clip.clip_id: task.work.value for task in self.plan(**changes).tasks(retries=True)}

    def finish(
        self,
        clip_id: str,
        *,
        worker: str = "w",
        num_frames: int = 8,
        drawing: Mapping[str, float] | None = None,
        **summary: Any,
    ) -> None:
        """Record that a clip is done, as a worker does, with a text file in place of its result.

        Args:
            drawing: time of its drawings, s.
        """
        task = next(task for task in self.plan().tasks() if task.clip.clip_id == clip_id)
        ledger = Ledger(self.paths, worker)
        record_result(self.paths, task, ledger, num_frames=num_frames, **summary)
        record_drawn(task, ledger, drawing)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        return list(read_events(self.paths, kinds))

    def failure(self, clip_id: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.paths.clip(clip_id).failure.read_text())
        return read

    def failed_attempts(self, clip_id: str) -> list[tuple[int, str | None]]:
        """Rung and error class of every attempt at a clip that has failed."""
        return [(attempt["rung"], attempt["class"]) for attempt in self.failure(clip_id)["attempts"]]


def record_done(paths: RunPaths, task: ClipTask, ledger: Ledger, **summary: Any) -> None:
    """Write a file in place of a result, and the events of a clip that is done and drawn."""
    record_result(paths, task, ledger, **summary)
    record_drawn(task, ledger)


def record_result(paths: RunPaths, task: ClipTask, ledger: Ledger, **summary: Any) -> None:
    """Write a file in place of a result, and the event of a result that is complete."""
    result = paths.clip(task.clip.clip_id).result
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text("in place of a result")
    ledger.follow(task.after)
    made = summary_of(**summary)
    ledger.append(
        "done",
        clip_id=task.clip.clip_id,
        content=task.fingerprint.as_json(),
        is_partial=bool(made["object_errors"]),
        summary=made,
    )


def record_drawn(task: ClipTask, ledger: Ledger, seconds: Mapping[str, float] | None = None) -> None:
    """Write the events of a clip that is drawn."""
    ledger.append("scored", clip_id=task.clip.clip_id, file_sha256="not compared", scores={})
    ledger.append("ended", clip_id=task.clip.clip_id, state="done", seconds=seconds or {})


def summary_of(**changes: Any) -> dict[str, Any]:
    """The summary of a clip as its "done" event has it."""
    return {
        "num_objects": 1, "num_points": 4, "num_frames": 8, "num_source_frames": 8, "frame_interval": 1,
        "visible_share": 1.0, "in_mask_share": 0.5, "checks": {}, "seconds": {"track": 2.0, "wait_for_frames": 2.0},
        "peak_memory_bytes": 3 * 2**20, "object_errors": {}, "decoder": "pyav",
        "decoder_fallback": "", "rung": 1, "num_attempts": 1,
    } | changes  # fmt: skip


class FakeDisplay:
    """Keeps the events and the progress that it is given."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.progress: list[tuple[str, str, float]] = []

    def show_event(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def show_progress(self, clip_id: str, stage: str, fraction: float) -> None:
        self.progress.append((clip_id, stage, fraction))
