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


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from tests.tracking.cotracker3.upstream import upstream_importable

    with upstream_importable(tmp_path_factory.mktemp("upstream")):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("upstream")
class TestContract(TrackerContract):
    @pytest.fixture(params=["offline", "online"])
    def tracker(self, checkpoints: dict[str, Path], request: pytest.FixtureRequest) -> Tracker:
        return CoTrackerUpstreamTracker(checkpoints[request.param], mode=request.param, device="cpu")


@pytest.mark.slow
@pytest.mark.usefixtures("upstream")
@pytest.mark.parametrize("backward", [False, True])
def test_tracks_equal_those_of_the_upstream_predictor(checkpoints: dict[str, Path], backward: bool) -> None:
    """Resizing frames one by one and scaling points is equivalent to the predictor's own preprocessing."""
    from tests.tracking.cotracker3.upstream import offline_tracks

    frames, queries = moving_square(6), query((0, 20, 30), (4, 60.5, 12))
    tracker = CoTrackerUpstreamTracker(checkpoints["offline"], device="cpu", backward=backward)
    tracks = tracker.track(ArraySource(frames), queries)
    xy, visible = offline_tracks(frames, queries.txy, backward_tracking=backward)
    np.testing.assert_allclose(tracks.xy, xy, atol=1e-3)
    np.testing.assert_array_equal(tracks.visible, visible)
    np.testing.assert_array_equal(tracks.visibility, visible)


@pytest.mark.slow
@pytest.mark.usefixtures("upstream")
def test_grid_points_equal_those_of_segm_mask(checkpoints: dict[str, Path]) -> None:
    import torch

    from tests.tracking.cotracker3.upstream import offline_tracks

    frames, mask = moving_square(4), np.zeros((64, 96), np.bool_)
    mask[10:50, 20:70] = True
    xy, _ = offline_tracks(frames, grid_size=8, segm_mask=torch.from_numpy(mask)[None, None].float())
    points = GridSampler(grid_size=8).sample(mask)
    assert len(points) == xy.shape[1]
    assert np.abs(np.sort(points, axis=0) - np.sort(xy[0], axis=0)).max() < 0.6  # the upstream grid is at 512x384


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
