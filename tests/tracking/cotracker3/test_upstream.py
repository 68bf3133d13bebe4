"""The engine compared with the upstream package on the same frames with the same weights.

On drawn frames at small resolutions, landscape and portrait, with probabilities that are not saturated; and, in long
tests, on real frames at the resolution of the released models.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from aot.decoding import open_source
from aot.tracking.cotracker3 import CoTracker3, load_model, track_offline, track_online
from aot.types import BoolArray, Clip, Tracks, UInt8Array
from tests.shared_data import CLIPS, needs_shared_data
from tests.synthetic import moving_square
from tests.tracking.cotracker3.upstream import (
    network_results,
    offline_tracks,
    online_tracks,
    small_upstream,
    upstream_importable,
)
from tests.tracking.cotracker3.weights import golden_weights, spread_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

# Limits of differences in px and of probabilities: with drawn frames and two iterations; with real frames and six.
DRAWN, REAL = (1e-3, 1e-4), (0.01, 1e-3)
OFFLINE_THRESHOLD, ONLINE_THRESHOLD = 0.9, 0.6

# Two refinement iterations show how the second uses the results of the first, and windows of four frames in a clip of
# five how windows are joined, in a fraction of the time of six iterations and windows of sixteen frames.
FEW = 2
WINDOW_LEN = 4
# The sides differ by more than a patch, so that a limit taken from the wrong side changes the results.
LANDSCAPE, PORTRAIT = (48, 88), (88, 48)


@pytest.fixture(scope="module", autouse=True)
def _upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with upstream_importable(tmp_path_factory.mktemp("upstream")):
        yield


def check(
    tracks: Tracks, expected: Tracks, score: np.ndarray, threshold: float, limits: tuple[float, float], rows: BoolArray
) -> None:
    """Compare the rows (T, N): all values within the limits; `visible` equal except where the score is undecided."""
    max_px, max_probability = limits
    assert np.abs(tracks.xy - expected.xy)[rows].max() < max_px
    assert np.abs(tracks.visibility - expected.visibility)[rows].max() < max_probability
    assert np.abs(tracks.confidence - expected.confidence)[rows].max() < max_probability
    is_undecided = np.abs(score - threshold) < max_probability
    assert ((tracks.visible == expected.visible) | is_undecided)[rows].all()


def check_offline(tracks: Tracks, expected: Tracks, limits: tuple[float, float]) -> None:
    all_rows = np.ones(expected.visible.shape, np.bool_)
    check(tracks, expected, tracks.visibility, OFFLINE_THRESHOLD, limits, all_rows)


def check_online(tracks: Tracks, expected: Tracks, limits: tuple[float, float], rows: BoolArray) -> None:
    check(tracks, expected, tracks.visibility * tracks.confidence, ONLINE_THRESHOLD, limits, rows)


def check_spread(*probabilities: np.ndarray) -> None:
    """Saturated probabilities would hide errors of their logits."""
    for probability in probabilities:
        assert probability.min() < 0.3
        assert probability.max() > 0.7
        assert np.mean((probability > 0.02) & (probability < 0.98)) > 0.8


@pytest.fixture(scope="module")
def offline_model() -> CoTracker3:
    """Tests set its resolution."""
    return load_model(spread_weights("offline"))


@pytest.fixture(scope="module")
def online_model() -> CoTracker3:
    """Tests set its resolution."""
    return load_model(spread_weights("online", WINDOW_LEN), mode="online", window_len=WINDOW_LEN)


def source_of(resolution: tuple[int, int]) -> tuple[int, int]:
    """Size (H, W) of a source of the same orientation as the model's frames, with another aspect ratio."""
    height, width = resolution
    return height * 3 // 2 + 2, width * 4 // 3 + 1


def draw(num_frames: int, size: tuple[int, int]) -> tuple[UInt8Array, np.ndarray]:
    """Frames of a size (H, W), and queries on three of them: inside the frame, on its borders and beyond."""
    height, width = size
    t = [0, 2, 1, 0, 1, 2, 0, 1]
    x = np.array([0.2, 0.1, 1, -0.1, 0.4, 0.6, 0.7, 0.1]) * (width - 1)
    y = np.array([0.5, 1, 0.95, 1.3, 0.3, 0.5, 0.1, 0.8]) * (height - 1)
    return moving_square(num_frames, width=width, height=height), np.column_stack([t, x, y]).astype(np.float32)


@pytest.mark.parametrize("resolution", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def test_offline_network_drawn(offline_model: CoTracker3, resolution: tuple[int, int]) -> None:
    frames, queries = draw(3, resolution)
    with small_upstream(resolution, FEW):
        expected = network_results(frames, queries, spread_weights("offline"))
    found = offline_model(np.moveaxis(frames, -1, 1), queries, num_iters=FEW)
    max_px, max_probability = DRAWN
    for value, reference, limit in zip(found, expected, (max_px, max_probability, max_probability), strict=True):
        assert np.abs(value.numpy() - reference).max() < limit
    check_spread(*expected[1:])


@pytest.mark.parametrize(
    ("resolution", "backward"), [(LANDSCAPE, True), (PORTRAIT, False)], ids=["landscape_backward", "portrait"]
)
def test_offline_points_drawn(
    offline_model: CoTracker3, resolution: tuple[int, int], backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, queries = draw(3, source_of(resolution))
    with small_upstream(resolution, FEW):
        expected = offline_tracks(frames, queries, weights=spread_weights("offline"), backward_tracking=backward)
    monkeypatch.setattr(offline_model, "resolution", resolution)
    tracks = track_offline(offline_model, frames, query_points=queries, backward=backward, num_iters=FEW)
    check_offline(tracks, expected, DRAWN)
    check_spread(expected.visibility, expected.confidence)


@pytest.mark.parametrize("backward", [False, True])
def test_offline_masked_grid_drawn(offline_model: CoTracker3, backward: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    height, width = source_of(PORTRAIT)
    frames, mask = moving_square(3, width=width, height=height), np.zeros((height, width), np.uint8)
    mask[height // 5 :, : width * 4 // 5] = 1
    options = {"grid_size": 5, "segm_mask": mask, "grid_query_frame": 2, "backward_tracking": backward}
    with small_upstream(PORTRAIT, FEW):
        expected = offline_tracks(frames, weights=spread_weights("offline"), **options)
    monkeypatch.setattr(offline_model, "resolution", PORTRAIT)
    tracks = track_offline(
        offline_model, frames, grid_size=5, mask=mask, query_frame=2, backward=backward, num_iters=FEW
    )
    check_offline(tracks, expected, DRAWN)
    check_spread(expected.visibility, expected.confidence)


@pytest.mark.parametrize(
    ("resolution", "support_grid"), [(LANDSCAPE, True), (PORTRAIT, False)], ids=["landscape_support", "portrait"]
)
def test_online_points_drawn(
    online_model: CoTracker3, resolution: tuple[int, int], support_grid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two windows: frames 0 to 3, and 2 to 4 with padding; one query is only in the second."""
    frames, queries = draw(5, source_of(resolution))
    queries[-1, 0] = 4
    options = {"weights": spread_weights("online", WINDOW_LEN), "window_len": WINDOW_LEN}
    with small_upstream(resolution, FEW):
        expected = online_tracks(frames, queries, add_support_grid=support_grid, **options)
    monkeypatch.setattr(online_model, "resolution", resolution)
    tracks = track_online(online_model, frames, queries, support_grid=support_grid, num_iters=FEW)
    rows = np.ones(expected.visible.shape, np.bool_)
    rows[:2, -1] = False  # where upstream reports an estimate of a point whose frame it has not read
    check_online(tracks, expected, DRAWN, rows)
    check_spread(expected.visibility[rows], expected.confidence[rows])
    assert expected.visible[rows].any()
    assert not expected.visible[rows].all()


NUM_REAL = 20


@pytest.fixture(scope="module")
def frames() -> UInt8Array:
    """Real frames at source size, which differs from the model's."""
    with open_source(Clip(clip_id="teapot", source=CLIPS / "teapot" / "clip.mp4")) as source:
        return source.read(source.index[: 3 * NUM_REAL : 3]).rgb


@pytest.fixture(scope="module")
def queries(frames: UInt8Array) -> np.ndarray:
    rng = np.random.default_rng(4)
    xy = rng.uniform(0, [frames.shape[2] - 1, frames.shape[1] - 1], (12, 2))
    return np.column_stack([rng.integers(0, NUM_REAL, 12), xy]).astype(np.float32)


@pytest.mark.long
@needs_shared_data
@pytest.mark.parametrize("backward", [False, True])
def test_offline_points(frames: UInt8Array, queries: np.ndarray, backward: bool) -> None:
    """Quick counterpart: `test_offline_points_drawn`."""
    expected = offline_tracks(frames, queries, backward_tracking=backward)
    tracks = track_offline(load_model(golden_weights()), frames, query_points=queries, backward=backward)
    check_offline(tracks, expected, REAL)


@pytest.mark.long
@needs_shared_data
def test_offline_masked_grid(frames: UInt8Array) -> None:
    """Quick counterpart: `test_offline_masked_grid_drawn`."""
    mask = np.zeros(frames.shape[1:3], np.uint8)
    mask[100:300, 250:600] = 1
    expected = offline_tracks(frames, grid_size=9, segm_mask=mask, grid_query_frame=3)
    tracks = track_offline(load_model(golden_weights()), frames, grid_size=9, mask=mask, query_frame=3)
    check_offline(tracks, expected, REAL)


@pytest.mark.long
@needs_shared_data
@pytest.mark.parametrize("support_grid", [False, True])
def test_online_points(frames: UInt8Array, queries: np.ndarray, support_grid: bool) -> None:
    """Quick counterpart: `test_online_points_drawn`."""
    early = queries[queries[:, 0] < 16]  # those in the first window
    expected = online_tracks(frames, early, add_support_grid=support_grid)
    model = load_model(golden_weights(mode="online"), mode="online")
    tracks = track_online(model, frames, early, support_grid=support_grid)
    check_online(tracks, expected, REAL, np.ones(expected.visible.shape, np.bool_))
