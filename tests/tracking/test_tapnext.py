"""The tracker that uses our TAPNext engine, with synthetic weights of a small network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aot
from aot.checkpoints import identify
from aot.errors import CheckpointError, ConfigError, OutOfMemory, TrackingError
from aot.run import main
from aot.tracking.base import Tracker
from aot.tracking.tapnext import load_model, track, tracking
from aot.tracking.tapnext.sizes import CONVOLUTION_WIDTH, LEAN_ROWS, NUM_BINS
from aot.tracking.tapnext.tracker import TAPNextTracker
from aot.types import FrameBlock, Int64Array, QueryPoints, Tracks
from tests.fakes import ArraySource
from tests.synthetic import moving_square, write_video
from tests.tracking.contract import KEPT, QUERIES, TrackerContract, clip, query
from tests.tracking.cotracker3.allocations import peak_allocated_bytes
from tests.tracking.tapnext.small import HERE, SMALL, golden_state, released_weights, small_weights

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, Any] = {"device": "cpu", **SMALL}
MAX_GOLDEN_PX = 0.01
DEPTH, BLOCKS = 12, 2
"""Blocks of the released network, and of the one that is tested in its place."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.pt"
    torch.save(small_weights(), path)
    return path


@pytest.fixture(scope="module")
def tracker(weights: Path) -> TAPNextTracker:
    return TAPNextTracker(weights, **OPTIONS)


class TestContract(TrackerContract):
    @pytest.fixture(params=[False, True], ids=["forwards", "backward"])
    def tracker(self, weights: Path, request: pytest.FixtureRequest) -> Tracker:
        return TAPNextTracker(weights, backward=request.param, **OPTIONS)


def test_tracks_equal_those_of_the_authors_network_in_source_pixels(tmp_path: Path) -> None:
    """Positions of the authors are corner-based: 0 is the left border of the first pixel, here -0.5.

    The authors scale positions by the size of the image, which equals the number of bins in the released networks only.
    """
    with np.load(HERE / "predictor_small.npz") as file:
        expected = dict(file)
    torch.save(golden_state(expected), tmp_path / "golden.pt")
    frame, xy = expected["query_frame"], expected["source_xy"] - 0.5
    points = QueryPoints(np.column_stack([frame, xy]).astype(np.float32), np.ones(len(xy), np.int32))
    tracks = TAPNextTracker(tmp_path / "golden.pt", precision="fp32", **OPTIONS).track(
        ArraySource(expected["video"]), points
    )
    is_pinned = np.arange(len(tracks.xy))[:, None] == frame
    xy = expected["source_tracks"] * (SMALL["image_size"] / NUM_BINS) - 0.5
    assert np.abs(tracks.xy - xy)[~is_pinned].max() < MAX_GOLDEN_PX


@pytest.mark.parametrize("backward", [False, True])
def test_tracker_equals_the_engine_on_kept_frames(weights: Path, backward: bool) -> None:
    tracks = TAPNextTracker(weights, backward=backward, **OPTIONS).track(clip(), query(*QUERIES))
    points = query(*QUERIES).txy
    points[:, 0] = np.searchsorted(KEPT, points[:, 0])
    expected = track(load_model(weights, **SMALL), moving_square(8)[KEPT], points, backward=backward)
    assert np.array_equal(tracks.xy, expected.xy)
    assert np.array_equal(tracks.visible, expected.visible)
    assert np.array_equal(tracks.confidence, expected.confidence)


def test_lean_gives_the_same_tracks(tracker: TAPNextTracker) -> None:
    plain, lean = (tracker.track(clip(), query(*QUERIES), lean=lean) for lean in (False, True))
    np.testing.assert_allclose(lean.xy, plain.xy, atol=1e-3)
    np.testing.assert_allclose(lean.visibility, plain.visibility, atol=1e-4)


class RecordingSource(ArraySource):
    """Records which frames are requested."""

    def blocks(self, index: Int64Array | None = None) -> Iterator[FrameBlock]:
        self.passes = [*getattr(self, "passes", []), (self.index if index is None else index).tolist()]
        return super().blocks(index)


@pytest.mark.parametrize(
    ("backward", "expected"), [(False, [[0, 1, 2, 3, 4]]), (True, [[0, 1, 2, 3, 4], [3, 2, 1, 0]])]
)
def test_frames_are_read_once_per_direction(weights: Path, backward: bool, expected: list[list[int]]) -> None:
    source = RecordingSource(moving_square(5))
    TAPNextTracker(weights, backward=backward, **OPTIONS).track(source, query((0, 20, 30), (3, 30, 30)))
    assert source.passes == expected


def test_missing_weights_name_the_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for resolution, message in (
        (256, r"tapnextpp_ckpt\.pt.*download tapnextpp`.*tracker=lucas_kanade"),
        (512, r"tapnextpp_512\.ckpt.*download tapnextpp_512`"),
    ):
        with pytest.raises(CheckpointError, match=message):
            TAPNextTracker(input_resolution=resolution)


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"broken\.pt cannot be read as PyTorch weights"):
        TAPNextTracker(tmp_path / "broken.pt", **OPTIONS).track(clip(), query((0, 20, 20)))


@pytest.mark.parametrize("resolution", [1, 100, 260])
def test_resolution_between_patches_is_refused_by_the_constructor(weights: Path, resolution: int) -> None:
    with pytest.raises(ConfigError, match=rf"tracker\.input_resolution={resolution}: expected a multiple of 8"):
        TAPNextTracker(weights, input_resolution=resolution)


def test_declares_weights_device_and_precision(tracker: TAPNextTracker, weights: Path) -> None:
    assert tracker.weights == (identify(weights),)
    assert tracker.device_name == "cpu"
    assert tracker.precision_name == "fp32", "auto, on a CPU"


def test_query_on_a_dropped_frame_is_refused(tracker: TAPNextTracker) -> None:
    with pytest.raises(TrackingError, match=r"source frames \[2\] are not among the 6 kept frames"):
        tracker.track(clip(), query((2, 20, 20)))


def test_positions_that_are_not_finite_raise(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = TAPNextTracker(weights, precision="bf16", **OPTIONS)
    monkeypatch.setattr("aot.tracking.tapnext.tracking.to_source", lambda xy, size: np.full_like(xy, np.nan))
    with pytest.raises(TrackingError, match=r"not finite with precision=bf16; use tracker\.precision=fp32"):
        tracker.track(clip(), query((0, 20, 20)))


def test_allocator_errors_are_mapped(tracker: TAPNextTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.tracking.tapnext.tracking.track", lambda *args, **options: torch.empty(10**15))
    with pytest.raises(OutOfMemory, match=r"out of memory in TAPNext: .*; use fewer points"):
        tracker.track(clip(), query((0, 20, 20)))


class TestMemory:
    def test_only_results_grow_with_frames(self, weights: Path) -> None:
        tracker = TAPNextTracker(weights)
        short, long = (needed(tracker, num_frames=number) for number in (50, 1000))
        assert long - short == 950 * 300 * 48

    def test_grows_with_points_and_resolution(self, weights: Path) -> None:
        tracker = TAPNextTracker(weights)
        assert needed(tracker, num_points=3000) > needed(tracker) + 2700 * 147_000, "the state of a point: 147 kB"
        assert needed(tracker, lean=True) < needed(tracker)
        assert needed(TAPNextTracker(weights, input_resolution=512)) > 2 * needed(tracker)
        assert needed(TAPNextTracker(weights, backward=True)) > needed(tracker)

    @pytest.mark.slow
    @pytest.mark.parametrize("lean", [False, True], ids=["plain", "lean"])
    @pytest.mark.parametrize("num_points", [5, 800])
    def test_is_an_upper_bound_of_the_bytes_of_tensors(
        self, released_size: TAPNextTracker, num_points: int, lean: bool
    ) -> None:
        source, queries = (
            ArraySource(moving_square(2)),
            query(*[(0, 20 + number % 30, 30) for number in range(num_points)]),
        )
        released_size.track(source, queries, lean=lean)  # loads the model, which is not counted
        used = peak_allocated_bytes(lambda: released_size.track(source, queries, lean=lean))
        missing = (DEPTH - BLOCKS) * 4 * CONVOLUTION_WIDTH * 768 * (1024 + num_points + 1)
        bound = released_size.needed_bytes(num_frames=2, num_points=num_points, width=96, height=64, lean=lean)
        assert used + missing < bound < 2 * (used + missing) + 100e6

    def test_only_results_of_tracks_grow_with_frames(self, tracker: TAPNextTracker) -> None:
        frames, result_bytes = np.repeat(moving_square(2), 150, axis=0), 16

        def peak(num_frames: int) -> int:
            return peak_allocated_bytes(lambda: tracker.track(ArraySource(frames[:num_frames]), query((0, 20, 30))))

        peak(1)  # loads the model, which is not counted
        assert peak(300) - peak(10) <= 290 * result_bytes


def needed(tracker: TAPNextTracker, **changes: Any) -> int:
    options = {"num_frames": 300, "num_points": 300, "width": 854, "height": 480, "lean": False}
    return tracker.needed_bytes(**options | changes)


@pytest.fixture(scope="module")
def released_size(tmp_path_factory: pytest.TempPathFactory) -> TAPNextTracker:
    """Blocks of the released size, but fewer."""
    path = tmp_path_factory.mktemp("released") / "weights.pt"
    torch.save(released_weights(depth=BLOCKS), path)
    return TAPNextTracker(path, device="cpu")


VIDEO = ["dataset=video", "dataset.path=clip.mp4", "dataset.box=[8,20,28,40]"]
REST = ["segmenter=grabcut", "query_points.num_points=9", "launcher=inline", "output.overlay=false"]
NETWORK = [f"tracker.{name}={value}" for name, value in OPTIONS.items()]


def test_a_run_records_certainty_weights_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(8))
    monkeypatch.chdir(tmp_path)
    assert main([*VIDEO, *REST, "tracker=tapnext", f"tracker.checkpoint='{weights}'", *NETWORK]) == 0
    (file,) = (tmp_path / "outputs").rglob("*.h5")
    result = aot.load(file)
    assert result.tracks.xy.shape == (8, 9, 2)
    assert np.abs(result.tracks.visibility - result.tracks.confidence).max() > 0.01
    (record,) = json.loads(result.attributes["weights"])
    assert (record["part"], record["file"]) == ("tracker", weights.name)
    assert json.loads(result.attributes["precision"]) == {"tracker": "fp32"}


def test_out_of_memory_leads_to_the_lean_rung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    engine = tracking.track

    def small_device(*args: Any, rows_at_once: int | None, **options: Any) -> Tracks:
        if rows_at_once != LEAN_ROWS:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return engine(*args, rows_at_once=rows_at_once, **options)

    monkeypatch.setattr(tracking, "track", small_device)
    write_video(tmp_path / "clip.mp4", moving_square(8))
    monkeypatch.chdir(tmp_path)
    assert main([*VIDEO, *REST, "tracker=tapnext", f"tracker.checkpoint='{weights}'", *NETWORK]) == 0
    (file,) = (tmp_path / "outputs").rglob("*.h5")
    attempts = json.loads(aot.load(file).attributes["attempts"])
    assert [(attempt["lean"], attempt["class"]) for attempt in attempts] == [(False, "oom"), (True, None)]


def test_missing_weights_are_reported_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "clip.mp4", moving_square(8))
    monkeypatch.chdir(tmp_path)
    assert main([*VIDEO, *REST, "tracker=tapnext"]) == 2
    assert "python -m aot.checkpoints download tapnextpp`" in capsys.readouterr().err
    assert not (tmp_path / "outputs").exists()
