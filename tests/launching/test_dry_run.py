"""What `dry_run=true` prints: shards, predicted time, and predicted memory."""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aot.config import Ladder, Selection
from aot.decoding.size import ClipSize
from aot.errors import DecodeError
from aot.launching.base import Preview
from aot.launching.dry_run import print_plan
from aot.launching.plan import Plan
from aot.runs.task import ClipTask
from aot.system.text import counted
from aot.types import Prompt
from tests.fakes import StillTracker
from tests.launching.in_memory import ListedClips, MemoryRun, part


class Previewed:
    """A launcher that only previews; `preview` is set by the test."""

    preview_of: Preview

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        return Previewed.preview_of

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> None:
        raise AssertionError("a dry run starts nothing")


class SizedTracker(StillTracker):
    """Needs one byte per point and frame on a GPU, half of it with the lean plan."""

    device_name = "cuda:0 of the tests"

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return num_frames * num_points // (2 if lean else 1)


class SizedTrackerOfTheCpu(SizedTracker):
    """Needs the same in main memory."""

    device_name = "cpu"


class DryRun(MemoryRun):
    """Four clips of 10, 20, 30 and 40 frames of 10x10 px."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, dict.fromkeys("abcd", 10))

    def shown(self, preview: Preview, **changes: Any) -> list[str]:
        Previewed.preview_of = preview
        text = io.StringIO()
        plan = self.plan(launcher=part(Previewed), **({"tracker": part(SizedTracker)} | changes))
        print_plan(plan, Console(file=text, width=200, soft_wrap=True))
        return text.getvalue().splitlines()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DryRun:
    frames = {"a.mp4": 10, "b.mp4": 20, "c.mp4": 30, "d.mp4": 40}

    def read(source: Path, pattern: str | None = None, stream: int | None = None) -> ClipSize:
        if source.name not in frames:
            raise DecodeError("no header")
        return ClipSize(frames[source.name], 10, 10, 25.0)

    monkeypatch.setattr("aot.launching.costs.read_size", read)
    monkeypatch.setattr("aot.launching.dry_run.available_bytes", lambda tracker, processes_per_gpu: 10**12)
    return DryRun(tmp_path)


def preview(
    *shards: str, workers: int = 1, per_shard: int = 1, memory: int | None = None, script: str = "", drawers: int = 0
) -> Preview:
    return Preview([list(shard) for shard in shards], workers, memory, script or None, per_shard, drawers)


def test_everything_is_printed_and_nothing_is_written(run: DryRun) -> None:
    shutil.rmtree(run.paths.root)
    shown = run.shown(preview("da", "cb", workers=2))
    assert shown == [
        str(run.paths.root),
        "4 clips: 4 to run, 0 to draw, 0 finished before, 0 failed before",
        "2 shards, at most 2 at a time:",
        "  1: 2 clips: d, a",
        "  2: 2 clips: c, b",
        "time: unknown until a clip of this run is done; run a pilot with dataset.limit=3",
        "memory of a worker: 1000.0 GB; predicted first attempt:",
        "  rung 1 (as configured): 4 clips",
        "nothing was started (dry_run=true)",
    ]
    assert not run.paths.root.exists()


def test_finished_run_has_no_shards(run: DryRun) -> None:
    for clip_id in "abcd":
        run.finish(clip_id)
    assert run.shown(preview("")) == [
        str(run.paths.root),
        "4 clips: 0 to run, 0 to draw, 4 finished before, 0 failed before",
        "nothing was started (dry_run=true)",
    ]


def test_counts_of_all_kinds(run: DryRun) -> None:
    run.finish("a")
    run.finish("b")
    run.paths.clip("c").failure.parent.mkdir(parents=True)
    content = str(run.task("c").fingerprint.as_json()).replace("'", '"')
    run.paths.clip("c").failure.write_text(f'{{"class": "oom", "at": "2000", "content": {content}}}')
    shown = run.shown(preview("abd"), overlay=True)
    assert shown[1] == "4 clips: 1 to run, 2 to draw, 0 finished before, 1 failed before"
    assert shown[-2] == "  rung 1 (as configured): 1 clip", "drawing needs no prediction"


def test_time_follows_from_the_clips_that_are_done(run: DryRun) -> None:
    run.finish("a", seconds={"track": 60.0, "wait_for_frames": 40.0})  # 100 s for 10 frames
    shown = run.shown(preview("d", "cb", workers=2))
    assert shown[2:6] == [
        "2 shards, at most 2 at a time:",
        "  1: 1 clip, about 0:06:40: d",
        "  2: 2 clips, about 0:08:20: c, b",
        "time: about 0:08:20 in total, 0:15:00 for a single worker; estimated from the clips done so far",
    ]


@pytest.mark.parametrize(
    ("workers", "per_shard", "shards", "total"),
    [
        (1, 1, ("d", "c", "b"), "0:15:00"),
        (2, 1, ("d", "c", "b"), "0:08:20"),  # the third shard goes to the worker that is free first
        (2, 2, ("dcb",), "0:07:30"),  # the workers of a shard divide it
        (4, 4, ("dcb",), "0:06:40"),  # but not a clip
        (2, 2, ("d", "cb"), "0:11:40"),  # 400 s of one clip, then 300 s
    ],
)
def test_total_time(run: DryRun, workers: int, per_shard: int, shards: tuple[str, ...], total: str) -> None:
    run.finish("a", seconds={"track": 100.0})
    shown = run.shown(preview(*shards, workers=workers, per_shard=per_shard))
    (line,) = [line for line in shown if line.startswith("time:")]
    assert line.startswith(f"time: about {total} in total, 0:15:00 for a single worker")


def test_clips_of_another_selection_do_not_count(run: DryRun) -> None:
    run.finish("a", seconds={"track": 100.0})
    (run.sources / "a.mp4").unlink()
    assert any(line.startswith("time: unknown") for line in run.shown(preview("bcd")))


@pytest.mark.parametrize(
    ("workers", "drawers", "shards", "total"),
    [
        (1, 0, ("dcb",), "0:31:30"),  # 90 s of computing and 120 s of drawing per 10 frames
        (1, 1, ("dcb",), "0:24:00"),  # the drawer is busy as soon as the first clip is computed
        (1, 2, ("dcb",), "0:17:30"),  # the worker is busy until the last clip is left to draw
        (2, 1, ("dcb",), "0:24:00"),  # a second worker does not help the drawer
        (1, 1, ("d", "cb"), "0:28:30"),  # 360 + 480 s, then 270 + 600 s
    ],
)
def test_drawers_are_predicted_beside_the_workers(
    run: DryRun, workers: int, drawers: int, shards: tuple[str, ...], total: str
) -> None:
    run.finish("a", seconds={"track": 90.0}, drawing={"score": 20.0, "overlay": 100.0, "pictures": 7.0})
    shown = run.shown(preview(*shards, workers=workers, per_shard=workers, drawers=drawers), overlay=True)
    (line,) = [line for line in shown if line.startswith("time:")]
    assert line.startswith(f"time: about {total} in total, ")


def test_time_of_workers_and_drawers_is_printed_separately(run: DryRun) -> None:
    run.finish("a", seconds={"track": 90.0}, drawing={"score": 20.0, "report": 40.0})
    (run.sources / "d.mp4").unlink()
    (run.sources / "c.mp4").unlink()

    def line(drawers: int, **changes: Any) -> str:
        return next(line for line in run.shown(preview("b", drawers=drawers), **changes) if line.startswith("time:"))

    assert line(1) == (
        "time: about 0:03:40 in total, 0:03:00 for a single worker, 0:00:40 for a single drawer; estimated from the "
        "clips done so far"
    ), "the report is not requested"
    assert line(0) == "time: about 0:03:40 in total, 0:03:40 for a single worker; estimated from the clips done so far"


def test_clips_that_are_only_drawn_take_no_computing(run: DryRun) -> None:
    for clip_id in "abcd":
        run.finish(clip_id, seconds={"track": 90.0}, drawing={"score": 20.0, "overlay": 30.0})
    shown = run.shown(preview("abcd", drawers=1), overlay=True)
    assert any(
        line.startswith("time: about 0:02:00 in total, 0:00:00 for a single worker, 0:02:00 for a single drawer")
        for line in shown
    ), "they are scored already"


def test_drawings_of_many_objects_take_no_longer(run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clip a has one object, and b has three."""
    original = ListedClips.clips
    three = tuple(Prompt(number, 0, box=(0, 0, 4, 4)) for number in (1, 2, 3))
    monkeypatch.setattr(
        ListedClips,
        "clips",
        lambda self: [replace(clip, prompts=three) if clip.clip_id == "b" else clip for clip in original(self)],
    )
    run.finish("a", seconds={"track": 10.0}, drawing={"score": 10.0})
    shown = run.shown(preview("b", drawers=1), selection=Selection(include="[ab]"))
    assert any("0:01:00 for a single worker, 0:00:20 for a single drawer" in line for line in shown)


def test_long_lists_are_shortened(run: DryRun) -> None:
    names = [f"clip{number:02}" for number in range(25)]
    for name in names:
        run.write_source(name, b"x")
    shown = run.shown(preview(*[[name] for name in names], ["a", "b", "c", "d"], [], workers=30))  # type: ignore[arg-type]
    assert shown[2] == "26 shards, at most 30 at a time:", "empty shards are not counted"
    assert shown[22] == "  20: 1 clip: clip19"
    assert shown[23] == "  … and 6 more"
    shown = run.shown(preview(["a", "b", "c", "d", *names], workers=1))  # type: ignore[arg-type]
    assert shown[3] == "  1: 29 clips: a, b, c, d, …"
    assert run.shown(preview("abcd"))[3] == "  1: 4 clips: a, b, c, d"


def test_shards_of_several_workers(run: DryRun) -> None:
    assert run.shown(preview("ab", "cd", workers=6, per_shard=3))[2] == "2 shards of 3 workers, at most 2 at a time:"


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (40, ["  rung 1 (as configured): 4 clips"]),
        (39, ["  rung 1 (as configured): 3 clips", "  rung 2 (lean, frame_interval 1): 1 clip"]),
        (10, [
            "  rung 1 (as configured): 1 clip", "  rung 2 (lean, frame_interval 1): 1 clip",
            "  rung 3 (lean, frame_interval 2): 2 clips",
        ]),
        (5, [
            "  rung 2 (lean, frame_interval 1): 1 clip", "  rung 3 (lean, frame_interval 2): 1 clip",
            "  rung 4 (lean, frame_interval 4): 2 clips",
        ]),
        (1, ["  rung 4 (lean, frame_interval 4): 4 clips"]),  # the last rung is always tried
    ],
)  # fmt: skip
def test_predicted_rungs(run: DryRun, memory: int, expected: list[str]) -> None:
    shown = run.shown(preview("abcd", memory=memory))
    start = shown.index("memory of a worker: 0.0 GB; predicted first attempt:")
    assert shown[start + 1 : -1] == expected


def test_predicted_rungs_of_frames_chosen_by_time(run: DryRun) -> None:
    """At 5 of 25 frames per second, the clips have 2, 4, 6 and 8 frames."""
    assert "  rung 1 (as configured): 4 clips" in run.shown(preview("abcd", memory=8), sample_fps=5.0)
    shown = run.shown(preview("abcd", memory=3), sample_fps=5.0)
    assert shown[-4:-1] == [
        "  rung 1 (as configured): 1 clip", "  rung 2 (lean, frame_interval 1): 2 clips",
        "  rung 3 (lean, frame_interval 2): 1 clip",
    ]  # fmt: skip


@pytest.mark.parametrize(("memory", "num_leaner"), [(4040, 0), (4039, 1)])
def test_masks_that_wait_to_be_written_need_main_memory(run: DryRun, memory: int, num_leaner: int) -> None:
    shown = run.shown(preview("abcd", memory=memory), tracker=part(SizedTrackerOfTheCpu))
    first = counted(4 - num_leaner, "clip")
    assert f"  rung 1 (as configured): {first}" in shown
    assert ("  rung 2 (lean, frame_interval 1): 1 clip" in shown) == bool(num_leaner)


def test_configured_ladder_is_used(run: DryRun) -> None:
    shown = run.shown(preview("abcd", memory=1), frame_interval=3, ladder=Ladder(max_frame_interval=3))
    assert shown[-2] == "  rung 2 (lean, frame_interval 3): 4 clips"


def test_query_points_of_the_manifest_are_counted(run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Object 1 has three points of its own, object 2 none: one is sampled."""
    points = ((0, 1.0, 1.0), (0, 2.0, 2.0), (5, 3.0, 3.0))
    prompts = (Prompt(1, 0, query_points=points), Prompt(2, 0, box=(0, 0, 4, 4)))
    original = ListedClips.clips
    monkeypatch.setattr(
        ListedClips,
        "clips",
        lambda self: [type(clip)(clip.clip_id, clip.source, prompts) for clip in original(self)],
    )
    shown = run.shown(preview("abcd", memory=80))
    assert shown[-3:-1] == ["  rung 1 (as configured): 2 clips", "  rung 2 (lean, frame_interval 1): 2 clips"]


def test_smaller_of_machine_and_limit_counts(run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.launching.dry_run.available_bytes", lambda tracker, processes_per_gpu: 2 * 10**9)
    assert "memory of a worker: 2.0 GB; predicted first attempt:" in run.shown(preview("abcd", memory=3 * 10**9))
    assert "memory of a worker: 1.0 GB; predicted first attempt:" in run.shown(preview("abcd", memory=10**9))
    shown = run.shown(preview("abcd", memory=3 * 10**9, script="#!/bin/sh"))
    assert "memory of a worker: 3.0 GB; predicted first attempt:" in shown, "a scheduler's machines are not this one"


def test_workers_that_share_a_gpu_divide_its_memory(run: DryRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "aot.launching.dry_run.available_bytes", lambda tracker, processes_per_gpu: 80 * 10**9 // processes_per_gpu
    )
    shared = replace(preview("abcd"), processes_per_gpu=2)
    assert "memory of a worker: 40.0 GB; predicted first attempt:" in run.shown(shared)


def test_memory_of_a_scheduler_without_a_limit_is_unknown(run: DryRun) -> None:
    shown = run.shown(preview("abcd", script="#!/bin/sh\nexec python"))
    assert shown[-5:] == [
        "memory: unknown; set launcher.mem_gb to see for which clips a leaner attempt is predicted",
        "",
        "#!/bin/sh",
        "exec python",
        "nothing was started (dry_run=true)",
    ]


def test_clips_of_unknown_size_are_counted(run: DryRun) -> None:
    run.write_source("e", b"x")
    assert run.shown(preview("abcde"))[-3:-1] == [
        "  rung 1 (as configured): 4 clips",
        "  unknown, because the size was not read: 1 clip",
    ]
    for clip_id in "abcd":
        run.finish(clip_id)
    shown = run.shown(preview("e"))
    assert not any(line.startswith("memory of a worker") for line in shown)
    assert "  unknown, because the size was not read: 1 clip" in shown
