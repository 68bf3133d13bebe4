"""Time and device memory of the stages of a clip; the GPU is a stand-in."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import aot
from aot.decoding.base import FrameSource
from aot.errors import AotError, WriteError
from aot.paths import RunPaths
from aot.pipeline import Settings, process_clip
from aot.stages import StageTimer
from aot.system.memory import device_peak_bytes
from aot.types import Clip, Prompt, QueryPoints, Tracks
from tests.fakes import StillTracker
from tests.synthetic import moving_square, write_video
from tests.test_pipeline import PARTS, PROVENANCE


class StandIn:
    """Takes the place of `torch.cuda`; it has only functions that do not wait for a device."""

    def __init__(self, num_gpus: int = 1) -> None:
        self.held = [0] * num_gpus
        self.peaks = [0] * num_gpus
        self.is_used = True

    def allocate(self, num_bytes: int, gpu: int = 0) -> None:
        """A tensor that is freed at once; tensors that stay are in `held`."""
        self.peaks[gpu] = max(self.peaks[gpu], self.held[gpu] + num_bytes)

    def is_initialized(self) -> bool:
        return self.is_used

    def device_count(self) -> int:
        return len(self.held)

    def max_memory_allocated(self, gpu: int) -> int:
        return self.peaks[gpu]

    def reset_peak_memory_stats(self, gpu: int) -> None:
        self.peaks[gpu] = self.held[gpu]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=stand_in))
    return stand_in


def test_peak_of_each_stage_is_its_own(cuda: StandIn) -> None:
    timer = StageTimer()
    with timer.stage("segment"):
        cuda.allocate(500)
        cuda.held[0] = 100
    with timer.stage("write"):
        pass
    with timer.stage("track"):
        cuda.allocate(300)
        cuda.allocate(200)
    assert timer.peak_device_bytes == {"segment": 500, "write": 100, "track": 400}


def test_peak_of_a_stage_in_parts_is_that_of_its_largest_part(cuda: StandIn) -> None:
    timer = StageTimer()
    for num_bytes in (200, 500, 300):
        with timer.stage("write"):
            cuda.allocate(num_bytes)
    assert timer.peak_device_bytes == {"write": 500}


def test_memory_of_a_nested_stage_is_that_of_the_outer_one(cuda: StandIn) -> None:
    """Masks are written between the steps of a model."""
    timer = StageTimer()
    with timer.stage("segment"):
        cuda.allocate(500)
        with timer.stage("write"):
            cuda.allocate(200)
    assert timer.peak_device_bytes == {"segment": 500}


def test_largest_peak_of_several_gpus_counts(cuda: StandIn) -> None:
    cuda.held, cuda.peaks = [0, 0, 0], [0, 0, 0]
    cuda.allocate(200, gpu=0)
    cuda.allocate(700, gpu=2)
    assert device_peak_bytes() == 700


def test_process_without_a_gpu_has_no_peaks(cuda: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda.is_used = False
    timer = StageTimer()
    with timer.stage("segment"):
        cuda.allocate(500)
    monkeypatch.delitem(sys.modules, "torch")
    with timer.stage("track"):
        pass
    assert timer.peak_device_bytes == {}
    assert list(timer.seconds) == ["segment", "track"]


def test_gpu_that_is_first_used_in_a_stage_has_a_peak(cuda: StandIn) -> None:
    """The models are loaded in the first stage that needs them."""
    cuda.is_used = False
    timer = StageTimer()
    with timer.stage("segment"):
        cuda.is_used = True
        cuda.allocate(500)
    assert timer.peak_device_bytes == {"segment": 500}


def test_parts_of_a_stage_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 13.0, 20.0, 24.0])
    monkeypatch.setattr("aot.stages.time.perf_counter", lambda: next(times))
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("write"):
            pass
    assert timer.seconds == {"write": 7.0}


class _Closed:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.was_closed_with: Any = "open"

    def __enter__(self) -> str:
        return "entered"

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.was_closed_with = error
        if self.error:
            raise self.error


def test_closing_is_a_part_of_its_stage() -> None:
    timer, file = StageTimer(), _Closed(WriteError("disk full"))
    with pytest.raises(WriteError, match="disk full") as caught, timer.closed_in("write", file) as entered:
        assert (entered, timer.seconds) == ("entered", {})
    assert caught.value.stage == "write"
    with timer.closed_in("write", _Closed()):
        pass
    assert list(timer.seconds) == ["write"]


def test_error_before_the_end_reaches_the_context() -> None:
    timer, file = StageTimer(), _Closed()
    error = AotError("stopped")
    with pytest.raises(AotError, match="stopped"), timer.closed_in("write", file):
        raise error
    assert file.was_closed_with is error
    assert timer.seconds == {}


def test_peaks_are_in_the_result_and_in_the_summary(tmp_path: Path, cuda: StandIn) -> None:
    class Tracker(StillTracker):
        def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
            cuda.allocate(5000)
            return super().track(frames, queries, lean=lean)

    cuda.held[0] = 1000
    video = write_video(tmp_path / "a.mp4", moving_square(3))
    paths = RunPaths(tmp_path).clip("a")
    clip = Clip("a", video, (Prompt(object_id=1, frame=0, box=(8, 20, 28, 40)),))
    summary = process_clip(clip, replace(PARTS, tracker=Tracker()), Settings(1, 1, PROVENANCE), paths)
    assert (summary.peak_device_bytes["segment"], summary.peak_device_bytes["track"]) == (1000, 6000)
    attributes = aot.load(paths.result).attributes
    assert json.loads(attributes["peak_device_bytes"]) == summary.peak_device_bytes
    recorded = json.loads(attributes["seconds"])
    assert recorded.keys() == summary.seconds.keys()
    assert summary.seconds["write"] > recorded["write"], "the file is completed after it is written"
