"""The trackers that use our CoTracker3 engine, with synthetic weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import aot
from aot.checkpoints import identify
from aot.errors import ConfigError, OutOfMemory, TrackingError
from aot.run import main
from aot.tracking.base import Tracker
from aot.tracking.cotracker3 import CoTracker3, MemoryPlan, track_offline, track_online
from aot.tracking.cotracker3 import model as model_module
from aot.tracking.cotracker3.adapter import CoTracker3Adapter
from aot.tracking.cotracker3.offline import OfflineClip
from aot.tracking.cotracker3.store import FeatureStore
from aot.tracking.cotracker3_offline import CoTracker3OfflineTracker
from aot.tracking.cotracker3_online import CoTracker3OnlineTracker
from aot.types import FrameBlock, Int64Array, Tracks
from tests.fakes import ArraySource
from tests.synthetic import moving_square, write_video
from tests.tracking.contract import KEPT, QUERIES, TrackerContract, clip, query
from tests.tracking.cotracker3.allocations import peak_allocated_bytes

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {"resolution": (48, 64), "num_iters": 1, "device": "cpu"}
ROWS = np.searchsorted(KEPT, [frame for frame, _, _ in QUERIES])
REPOSITORY = Path(__file__).parents[2]


KINDS: dict[str, type[CoTracker3OfflineTracker | CoTracker3OnlineTracker]] = {
    "offline": CoTracker3OfflineTracker,
    "online": CoTracker3OnlineTracker,
}


@pytest.fixture(scope="module")
def placeholder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in place of weights that are not loaded."""
    path = tmp_path_factory.mktemp("placeholder") / "weights.pth"
    path.write_bytes(b"no weights")
    return path


MakeTracker = Callable[..., Any]


@pytest.fixture
def make(placeholder: Path, offline: CoTracker3, online: CoTracker3) -> MakeTracker:
    """Build a tracker whose model has small networks: make(mode, **options)."""
    models = {"offline": offline, "online": online}
    return lambda mode, **options: given_model(KINDS[mode](placeholder, **SMALL | options), models[mode])


def given_model(tracker: CoTracker3Adapter, model: CoTracker3) -> Any:
    """The tracker with a model that it does not need to load."""
    tracker._model = model
    return tracker


class TestOffline(TrackerContract):
    @pytest.fixture(params=[False, True], ids=["forwards", "backward"])
    def tracker(self, placeholder: Path, offline: CoTracker3, request: pytest.FixtureRequest) -> Tracker:
        return given_model(CoTracker3OfflineTracker(placeholder, backward=request.param, **SMALL), offline)


class TestOnline(TrackerContract):
    @pytest.fixture(params=["always", "join"])
    def tracker(self, placeholder: Path, online: CoTracker3, request: pytest.FixtureRequest) -> Tracker:
        options = {"late_queries": request.param, "backward": request.param == "join"}
        return given_model(CoTracker3OnlineTracker(placeholder, **options, **SMALL), online)


@pytest.fixture(scope="module")
def trackers(checkpoints: dict[str, Path]) -> dict[str, Tracker]:
    """Trackers that load weights from a file into the released network."""
    return {
        "offline": CoTracker3OfflineTracker(checkpoints["offline"], backward=True, **SMALL),
        "online": CoTracker3OnlineTracker(checkpoints["online"], **SMALL),
    }


@pytest.mark.slow
class TestReleasedNetwork(TrackerContract):
    @pytest.fixture(params=KINDS)
    def tracker(self, trackers: dict[str, Tracker], request: pytest.FixtureRequest) -> Tracker:
        return trackers[request.param]


@pytest.fixture
def offline_tracker(make: MakeTracker) -> CoTracker3OfflineTracker:
    tracker: CoTracker3OfflineTracker = make("offline")
    return tracker


def rows_of_queries() -> np.ndarray:
    points = query(*QUERIES).txy.copy()
    points[:, 0] = ROWS
    return points


@pytest.mark.parametrize(
    "options",
    [
        {"backward": True, "support_grid": False, "visibility_threshold": 0.5},
        {"backward": False, "support_grid": True, "visibility_threshold": 0.3},
    ],
)
def test_offline_tracker_equals_predictor_on_kept_frames(
    make: MakeTracker, offline: CoTracker3, options: dict[str, Any]
) -> None:
    tracks = make("offline", **options).track(clip(), query(*QUERIES))
    expected = track_offline(offline, moving_square(8)[KEPT], query_points=rows_of_queries(), num_iters=1, **options)
    np.testing.assert_allclose(tracks.xy, expected.xy, atol=1e-3)
    np.testing.assert_array_equal(tracks.visible, expected.visible)
    np.testing.assert_array_equal(tracks.visibility, expected.visibility)
    np.testing.assert_array_equal(tracks.confidence, expected.confidence)


def test_online_tracker_equals_predictor_on_kept_frames(make: MakeTracker, online: CoTracker3) -> None:
    options = {"support_grid": True, "late_queries": "join", "visibility_threshold": 0.2}
    tracks = make("online", backward=True, **options).track(clip(), query(*QUERIES))
    frames = moving_square(8)[KEPT]
    expected = track_online(online, frames, rows_of_queries(), num_iters=1, backward_frames=frames[::-1], **options)
    other = np.ones(tracks.visible.shape, np.bool_)
    other[ROWS, np.arange(len(ROWS))] = False  # there a track has its query's position
    np.testing.assert_allclose(tracks.xy[other], expected.xy[other], atol=1e-3)
    np.testing.assert_array_equal(tracks.visible[other], expected.visible[other])
    np.testing.assert_array_equal(tracks.visibility, expected.visibility)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_lean_plan_gives_same_tracks(make: MakeTracker, mode: str) -> None:
    tracker = make(mode)
    plain, lean = (tracker.track(clip(), query(*QUERIES), lean=lean) for lean in (False, True))
    np.testing.assert_allclose(lean.xy, plain.xy, atol=1e-3)
    np.testing.assert_allclose(lean.visibility, plain.visibility, atol=1e-4)


class RecordingSource(ArraySource):
    """Records which frames are requested."""

    def blocks(self, index: Int64Array | None = None) -> Iterator[FrameBlock]:
        wanted = self.index if index is None else index
        self.passes = [*getattr(self, "passes", []), wanted.tolist()]
        return super().blocks(index)


@pytest.mark.parametrize(
    ("backward", "expected"), [(False, [[0, 1, 2, 3, 4]]), (True, [[0, 1, 2, 3, 4], [3, 2, 1, 0]])]
)
def test_online_backwards_reads_back_from_the_last_query(
    make: MakeTracker, backward: bool, expected: list[list[int]]
) -> None:
    source = RecordingSource(moving_square(5))
    make("online", backward=backward).track(source, query((0, 20, 30), (3, 30, 30)))
    assert source.passes == expected


def test_offline_reads_every_frame_once(offline_tracker: CoTracker3OfflineTracker) -> None:
    source = RecordingSource(moving_square(5))
    offline_tracker.track(source, query((3, 30, 30)))
    assert source.num_decoded == 5


def test_missing_weights_name_the_alternatives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for kind, name in ((CoTracker3OfflineTracker, "offline"), (CoTracker3OnlineTracker, "online")):
        with pytest.raises(ConfigError, match=rf"scaled_{name}\.pth.*download cotracker3_{name}.*tracker=lucas_kanade"):
            kind()


@pytest.mark.parametrize("content", [b"no weights", b""])
def test_files_without_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.pth cannot be read as PyTorch weights"):
        CoTracker3OfflineTracker(tmp_path / "broken.pth", **SMALL).track(clip(), query((0, 20, 20)))


def test_too_small_resolution_is_refused_by_the_constructor(placeholder: Path) -> None:
    with pytest.raises(ConfigError, match=r"tracker\.resolution: got \[384, 16\] \(height, width\), expected at least"):
        CoTracker3OfflineTracker(placeholder, resolution=(384, 16))


def test_declares_weights_and_device(offline_tracker: CoTracker3OfflineTracker, placeholder: Path) -> None:
    assert offline_tracker.weights == (identify(placeholder),)
    assert offline_tracker.device_name == "cpu"


def test_query_on_a_dropped_frame_is_refused(offline_tracker: CoTracker3OfflineTracker) -> None:
    with pytest.raises(TrackingError, match=r"source frames \[2\] are not among the 6 kept frames"):
        offline_tracker.track(clip(), query((2, 20, 20)))


def test_positions_that_are_not_finite_raise(make: MakeTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = make("offline", precision="bf16")
    update = tracker._model.updateformer
    monkeypatch.setattr(update, "forward", lambda tokens, _: torch.full((*tokens.shape[:2], 4), float("nan")))
    with pytest.raises(TrackingError, match=r"not finite with precision=bf16; use tracker\.precision=fp32"):
        tracker.track(clip(), query((0, 20, 20)))


def test_allocator_errors_are_mapped(
    offline_tracker: CoTracker3OfflineTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OfflineClip, "track", lambda *args, **options: torch.empty(10**15))
    with pytest.raises(OutOfMemory, match=r"out of memory in CoTracker3: .*; use a larger frame_interval, fewer"):
        offline_tracker.track(clip(), query((0, 20, 20)))


def test_clip_that_does_not_fit_is_refused(
    offline_tracker: CoTracker3OfflineTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aot.tracking.cotracker3.plan.available_device_bytes", lambda device: 10**6)
    source = clip()
    with pytest.raises(OutOfMemory, match="tracking 37 points through 6 frames at 64x48 px needs"):
        offline_tracker.track(source, query((0, 20, 20)))
    assert source.num_decoded == 0


def needed(tracker: CoTracker3Adapter, **changes: Any) -> int:
    options = {"num_frames": 300, "num_points": 30, "width": 854, "height": 480, "lean": False}
    return tracker.needed_bytes(**options | changes)


@pytest.fixture
def full_size(placeholder: Path) -> dict[str, CoTracker3Adapter]:
    return {mode: kind(placeholder) for mode, kind in KINDS.items()}


def test_needed_bytes_grow_with_stored_features(full_size: dict[str, CoTracker3Adapter]) -> None:
    offline, online = full_size["offline"], full_size["online"]
    features = MemoryPlan().feature_bytes(100, (384, 512), "fp32")
    assert features < needed(offline, num_frames=400) - needed(offline) < 1.1 * features
    for steady in (needed(offline, num_frames=400, lean=True) - needed(offline, lean=True),
                   needed(online, num_frames=400) - needed(online)):  # fmt: skip
        assert 0 < steady < 1e6 * 100
    assert needed(offline, lean=True) < needed(offline)
    assert needed(offline, num_points=3000) > needed(offline) + 4 * 300 * 384 * 2970
    assert needed(online, width=8 * 854, height=8 * 480) > needed(online)


def test_needed_bytes_follow_the_options(placeholder: Path) -> None:
    exact, halved, in_file = (
        CoTracker3OfflineTracker(placeholder, **options)
        for options in ({}, {"precision": "bf16"}, {"features": "file"})
    )
    assert needed(halved) < 0.6 * needed(exact)
    assert needed(in_file) < 0.3 * needed(exact)
    backward = CoTracker3OnlineTracker(placeholder, backward=True)
    assert needed(backward) > needed(CoTracker3OnlineTracker(placeholder))


def test_memory_options_reach_the_plan(make: MakeTracker, tmp_path: Path) -> None:
    given = {"features": "file", "feature_precision": "bf16", "feature_folder": tmp_path, "query_block": 3}
    tracker = make("offline", frame_block=2, max_tokens=100, **given)
    assert tracker.fixed_plan == {
        "features": "file", "dtype": "bf16", "folder": tmp_path, "query_block": 3, "frame_block": 2, "max_tokens": 100,
    }  # fmt: skip
    plain = make("offline")
    difference = np.abs(tracker.track(clip(), query(*QUERIES)).xy - plain.track(clip(), query(*QUERIES)).xy)
    assert 0 < difference.max() < 0.1


# Runs in a separate process, so that only its memory is measured.
MEASURE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from aot.tracking.cotracker3_offline import CoTracker3OfflineTracker
from aot.tracking.cotracker3_online import CoTracker3OnlineTracker
from aot.types import QueryPoints
from tests.fakes import ArraySource

class Noise(ArraySource):  # any number of frames, generated when read
    def _read(self, index):
        return np.random.default_rng(0).integers(0, 255, (len(index), self.height, self.width, 3), dtype=np.uint8)

mode, checkpoint, lean = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "lean"
torch.set_num_threads(1)
kind = {"offline": CoTracker3OfflineTracker, "online": CoTracker3OnlineTracker}[mode]
tracker = kind(checkpoint, num_iters=1, backward=mode == "online", device="cpu")
source = Noise(np.broadcast_to(np.zeros((), np.uint8), (40, 720, 1280, 3)))
txy = np.random.default_rng(1).uniform(0, 700, (60, 3)).astype(np.float32)
txy[:, 0] = np.arange(60) % 40
queries = QueryPoints(txy, np.ones(60, np.int32))

def status(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

few = Noise(np.broadcast_to(np.zeros((), np.uint8), (2, 64, 64, 3)))
tracker.track(few, QueryPoints(np.zeros((1, 3), np.float32), np.ones(1, np.int32)))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
tracker.track(source, queries, lean=lean)
needed = tracker.needed_bytes(num_frames=40, num_points=60, width=1280, height=720, lean=lean)
print(json.dumps([status("VmHWM") - before, needed]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("lean", [False, True], ids=["plain", "lean"])
@pytest.mark.parametrize("mode", KINDS)
def test_needed_bytes_are_an_upper_bound_of_the_bytes_of_tensors(
    trackers: dict[str, Tracker], mode: str, lean: bool
) -> None:
    tracker, source, queries = trackers[mode], clip(), query(*QUERIES)
    tracker.track(source, queries, lean=lean)  # loads the model, which is not counted
    used = peak_allocated_bytes(lambda: tracker.track(source, queries, lean=lean))
    needed = tracker.needed_bytes(num_frames=6, num_points=5, width=96, height=64, lean=lean)
    assert used < needed < 3 * used + 100e6


@pytest.mark.long
@pytest.mark.parametrize("lean", ["plain", "lean"])
@pytest.mark.parametrize("mode", KINDS)
def test_needed_bytes_are_an_upper_bound(
    checkpoints: dict[str, Path], mode: str, lean: str, record_property: Callable[[str, object], None]
) -> None:
    """Of the resident memory. Quick counterpart: `test_needed_bytes_are_an_upper_bound_of_the_bytes_of_tensors`."""
    command = [sys.executable, "-c", MEASURE, mode, str(checkpoints[mode]), lean]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    used, needed = json.loads(process.stdout)
    record_property("figure", f"{used / 1e6:.0f} MB used, {needed / 1e6:.0f} MB estimated")
    assert used < needed < 3 * used + 400e6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with one video."""
    write_video(tmp_path / "clip.mp4", moving_square(8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


VIDEO = ["dataset=video", "dataset.path=clip.mp4", "dataset.box=[8,20,28,40]"]
REST = ["segmenter=grabcut", "query_points.num_points=9", "launcher=inline", "output.overlay=false"]


def test_missing_weights_of_the_default_tracker_are_reported_before_the_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*VIDEO, *REST]) == 2
    message = capsys.readouterr().err
    assert "python -m aot.checkpoints download cotracker3_offline" in message
    assert "tracker=lucas_kanade" in message
    assert not (folder / "outputs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("option", ["cotracker3", "cotracker3_online"])
def test_run_records_both_probabilities_and_the_weights(
    folder: Path, checkpoints: dict[str, Path], option: str
) -> None:
    path = checkpoints["online" if option.endswith("online") else "offline"]
    chosen = [f"tracker={option}", f"tracker.checkpoint='{path}'", "tracker.resolution=[48,64]"]
    assert main([*VIDEO, *REST, *chosen, "tracker.device=cpu", "tracker.num_iters=2"]) == 0
    (file,) = (folder / "outputs").rglob("*.h5")
    result = aot.load(file)
    tracks = result.tracks
    assert tracks.xy.shape == (8, 9, 2)
    assert 0 < tracks.visibility.mean() < 1
    assert 0 < tracks.confidence.mean() < 1
    assert np.abs(tracks.visibility - tracks.confidence).max() > 0.01
    (weights,) = json.loads(result.attributes["weights"])
    assert (weights["part"], weights["file"]) == ("tracker", path.name)
    assert result.attributes["device"] == "cpu"
    assert json.loads(result.attributes["precision"]) == {"tracker": "fp32"}


def test_checking_a_command_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from aot.arguments import parse_command\n"
        "from aot.compose import compose_jobs\n"
        "from aot.config import check_config\n"
        "jobs, errors = compose_jobs(parse_command(['dataset=demo', 'segmenter=grabcut']))\n"
        "config = check_config(jobs[0].values, jobs[0].choices)\n"
        "assert config.tracker.name == 'cotracker3' and config.hash\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)


GROUPS_OF_QUERIES = [query(*QUERIES[:2]), query(*QUERIES[1:]), query(*QUERIES)]


def assert_equal_tracks(found: Tracks, expected: Tracks) -> None:
    for name in ("xy", "visible", "visibility", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("features", ["memory", "host", "file", "recompute"])
def test_offline_features_are_computed_once_for_several_groups_of_points(
    make: MakeTracker, offline: CoTracker3, features: str
) -> None:
    tracker = make("offline", features=features, backward=True)
    expected = [tracker.track(clip(), group) for group in GROUPS_OF_QUERIES]
    num_frames: list[int] = []
    counting = offline.fnet.register_forward_pre_hook(lambda _, inputs: num_frames.append(len(inputs[0])))
    try:
        with tracker.on_clip(clip(), num_points=len(QUERIES)) as track:
            found = [track(group) for group in GROUPS_OF_QUERIES]
    finally:
        counting.remove()
    for one, other in zip(found, expected, strict=True):
        assert_equal_tracks(one, other)
    assert sum(num_frames) == len(KEPT) or features == "recompute"


def test_online_tracker_tracks_several_groups_of_points(make: MakeTracker) -> None:
    tracker = make("online")
    with tracker.on_clip(clip(), num_points=len(QUERIES)) as track:
        for group in GROUPS_OF_QUERIES:
            assert_equal_tracks(track(group), tracker.track(clip(), group))


def test_plan_is_chosen_for_the_largest_group_of_points(make: MakeTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, numbers = make("offline", support_grid=True), []
    choose = CoTracker3.choose_plan

    def noted(model: CoTracker3, num_frames: int, num_points: int, **options: Any) -> MemoryPlan:
        numbers.append((num_frames, num_points))
        return choose(model, num_frames, num_points, **options)

    monkeypatch.setattr(CoTracker3, "choose_plan", noted)
    with tracker.on_clip(clip(), num_points=50) as track:
        track(GROUPS_OF_QUERIES[0])
    assert numbers == [(len(KEPT), 50 + 36)]


@pytest.mark.parametrize("features", ["memory", "file"])
def test_features_of_a_clip_are_released(make: MakeTracker, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[FeatureStore] = []
    make_store = model_module.make_store

    def noted(*arguments: Any) -> FeatureStore:
        store = make_store(*arguments)
        close = store.close
        monkeypatch.setattr(store, "close", lambda: (close(), closed.append(store)))
        return store

    monkeypatch.setattr(model_module, "make_store", noted)
    tracker = make("offline", features=features)
    with pytest.raises(ZeroDivisionError), tracker.on_clip(clip(), num_points=3) as track:
        track(GROUPS_OF_QUERIES[0])
        assert not closed
        raise ZeroDivisionError
    assert len(closed) == 1
