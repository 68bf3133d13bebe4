"""The adapter for the upstream package: an error where it is not installed, else the results of its predictor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.errors import ConfigError
from aot.query_points.grid import GridSampler
from aot.tracking import cotracker_upstream
from aot.tracking.base import Tracker
from aot.tracking.cotracker_upstream import CoTrackerUpstreamTracker
from tests.fakes import ArraySource
from tests.synthetic import moving_square
from tests.tracking.contract import TrackerContract, query

# (H, W) of upstream's model and, online, frames per window: the released ones take minutes.
RESOLUTION, WINDOW_LEN = (48, 64), 4


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from tests.tracking.cotracker3.upstream import upstream_importable

    with upstream_importable(tmp_path_factory.mktemp("upstream")):
        yield


@pytest.fixture
def one_iteration(upstream: None) -> Iterator[None]:
    from tests.tracking.cotracker3.upstream import small_upstream

    with small_upstream(RESOLUTION, 1):
        yield


@pytest.fixture
def two_iterations(upstream: None) -> Iterator[None]:
    """After two, the spread weights give visible and hidden points."""
    from tests.tracking.cotracker3.upstream import small_upstream

    with small_upstream(RESOLUTION, 2):
        yield


@pytest.fixture(scope="module")
def spread_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of weights with which probabilities are spread, by mode."""
    import torch

    from tests.tracking.cotracker3.weights import spread_weights

    folder = tmp_path_factory.mktemp("checkpoints")
    weights = {"offline": spread_weights("offline"), "online": spread_weights("online", WINDOW_LEN)}
    files = {mode: folder / f"{mode}.pth" for mode in weights}
    for mode, path in files.items():
        torch.save(dict(weights[mode]), path)
    return files


@pytest.mark.slow
@pytest.mark.usefixtures("one_iteration", "one_thread")
class TestContract(TrackerContract):
    @pytest.fixture(params=["offline", "online"])
    def tracker(self, spread_checkpoints: dict[str, Path], request: pytest.FixtureRequest) -> Tracker:
        mode, window_len = request.param, WINDOW_LEN if request.param == "online" else None
        return CoTrackerUpstreamTracker(spread_checkpoints[mode], mode=mode, window_len=window_len, device="cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("two_iterations", "one_thread")
@pytest.mark.parametrize("backward", [False, True])
def test_tracks_equal_those_of_the_upstream_predictor(spread_checkpoints: dict[str, Path], backward: bool) -> None:
    """Resizing frames one by one and scaling points is equivalent to the predictor's own preprocessing."""
    from tests.tracking.cotracker3.upstream import offline_tracks
    from tests.tracking.cotracker3.weights import spread_weights

    frames, queries = moving_square(3), query((0, 20, 30), (2, 60.5, 12), (1, 90, 60), (0, 5, 50))
    tracker = CoTrackerUpstreamTracker(spread_checkpoints["offline"], device="cpu", backward=backward)
    tracks = tracker.track(ArraySource(frames), queries)
    expected = offline_tracks(frames, queries.txy, weights=spread_weights("offline"), backward_tracking=backward)
    np.testing.assert_allclose(tracks.xy, expected.xy, atol=1e-3)
    np.testing.assert_array_equal(tracks.visible, expected.visible)
    np.testing.assert_array_equal(tracks.visibility, expected.visible)
    np.testing.assert_array_equal(tracks.confidence, expected.visible)
    rows, own = queries.txy[:, 0].astype(int), np.arange(len(queries))
    expected.visible[rows, own] = False  # where every point is visible
    assert expected.visible.any()
    assert not expected.visible.all()


@pytest.mark.slow
@pytest.mark.usefixtures("one_iteration", "one_thread")
@pytest.mark.parametrize("window_len", [4, 5])
def test_online_clip_shorter_than_half_a_window_is_tracked(window_len: int, tmp_path: Path) -> None:
    """Upstream returns (0, 0) for all frames of a clip that does not reach into the second half of the first window."""
    import torch

    from tests.tracking.cotracker3.weights import spread_weights

    checkpoint = tmp_path / "online.pth"
    torch.save(dict(spread_weights("online", window_len)), checkpoint)
    tracker = CoTrackerUpstreamTracker(checkpoint, mode="online", window_len=window_len, device="cpu")
    frames, queries = moving_square(2), query((0, 20, 30), (0, 60.5, 12), (1, 90, 60))
    tracks = tracker.track(ArraySource(frames), queries)
    padded = tracker.track(ArraySource(frames[[0, 1, 1, 1]]), queries)
    np.testing.assert_allclose(tracks.xy, padded.xy[:2], atol=1e-3)
    np.testing.assert_array_equal(tracks.visible, padded.visible[:2])
    assert (tracks.xy[1, :2] > 5).all()


@pytest.mark.slow
@pytest.mark.usefixtures("one_iteration", "one_thread")
def test_grid_points_equal_those_of_segm_mask() -> None:
    """On a frame of the model's size, where the predictor does not round the mask."""
    from tests.tracking.cotracker3.upstream import offline_tracks

    mask = np.zeros(RESOLUTION, np.bool_)
    mask[8:40, 14:50] = True
    height, width = RESOLUTION
    expected = offline_tracks(moving_square(1, width=width, height=height), grid_size=8, segm_mask=mask)
    np.testing.assert_allclose(GridSampler(grid_size=8).sample(mask), expected.xy[0], atol=1e-3)


def test_missing_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cotracker_upstream, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"`cotracker` is not installed; .*git\+https.*CC-BY-NC.*tracker=cotracker3"):
        CoTrackerUpstreamTracker()


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cotracker_upstream, "find_spec", lambda name: object())


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"scaled_offline\.pth.*download cotracker3_offline.*tracker=lucas_kanade"),
        ({"mode": "online"}, r"scaled_online\.pth.*download cotracker3_online"),
        ({"v2": True}, r"tracker\.v2=true requires the weights of CoTracker2, got none; set tracker\.checkpoint=FILE"),
    ],
)
def test_missing_weights(
    options: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        CoTrackerUpstreamTracker(**options)


@pytest.mark.usefixtures("_installed")
def test_needed_bytes_grow_with_frames_and_points(checkpoints: dict[str, Path]) -> None:
    tracker = CoTrackerUpstreamTracker(checkpoints["offline"])
    size = {"width": 854, "height": 480, "lean": False}
    few, many = (tracker.needed_bytes(num_frames=75, num_points=points, **size) for points in (30, 600))
    assert 8e9 < few < many
    assert tracker.needed_bytes(num_frames=150, num_points=30, **size) > 15e9
