"""The trackers made of CoTracker3, ours and the upstream package's: the role's contract, weights, errors."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from aot.errors import ConfigError, OutOfMemory
from aot.tracking.base import Tracker
from aot.tracking.cotracker3_offline import CoTracker3OfflineTracker
from aot.tracking.cotracker3_online import CoTracker3OnlineTracker
from aot.tracking.cotracker_upstream import CoTrackerUpstreamTracker
from benchmarks.tracker import fetch_upstream
from tests.fakes import ArraySource
from tests.synthetic import moving_square
from tests.tracking.contract import TrackerContract, clip, query
from tests.tracking.cotracker3.conftest import RESOLUTION
from tests.tracking.cotracker3.weights import golden_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with made-up weights of both models, in the form of the released files."""
    folder = tmp_path_factory.mktemp("weights")
    for mode, file in (("offline", "scaled_offline.pth"), ("online", "scaled_online.pth")):
        torch.save({"model": dict(golden_weights(mode=mode))}, folder / file)
    return folder


def offline(weights: Path, **options: object) -> CoTracker3OfflineTracker:
    return CoTracker3OfflineTracker(weights / "scaled_offline.pth", resolution=RESOLUTION, **options)  # type: ignore[arg-type]


def online(weights: Path, **options: object) -> CoTracker3OnlineTracker:
    return CoTracker3OnlineTracker(weights / "scaled_online.pth", resolution=RESOLUTION, **options)  # type: ignore[arg-type]


class TestOffline(TrackerContract):
    @pytest.fixture(params=[False, True])
    def tracker(self, weights: Path, request: pytest.FixtureRequest) -> Tracker:
        return CoTracker3OfflineTracker(
            weights / "scaled_offline.pth", resolution=RESOLUTION, num_iters=2, backward=request.param
        )


class TestOnline(TrackerContract):
    @pytest.fixture(params=["always", "join"])
    def tracker(self, weights: Path, request: pytest.FixtureRequest) -> Tracker:
        return CoTracker3OnlineTracker(
            weights / "scaled_online.pth", resolution=RESOLUTION, num_iters=2, late_queries=request.param, backward=True
        )


@pytest.mark.slow
class TestUpstream(TrackerContract):
    """The package of CoTracker's authors, as it is installed, else as a wheel on PyPI carries it."""

    @pytest.fixture
    def tracker(self, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
        folder = fetch_upstream(tmp_path)
        if folder is not None:
            monkeypatch.syspath_prepend(str(folder))
        return CoTrackerUpstreamTracker(weights / "scaled_offline.pth", device="cpu", backward=True)


@pytest.mark.parametrize("make", [offline, online])
def test_a_lean_run_gives_the_same_tracks(make: type[CoTracker3OfflineTracker], weights: Path) -> None:
    tracker, queries = make(weights), query((0, 18, 30), (4, 30, 30))
    usual, lean = tracker.track(clip(), queries), tracker.track(clip(), queries, lean=True)
    np.testing.assert_allclose(lean.xy, usual.xy, atol=1e-3)
    np.testing.assert_allclose(lean.visibility, usual.visibility, atol=1e-4)


def test_a_lean_run_needs_less(weights: Path) -> None:
    size = {"num_frames": 300, "num_points": 100, "width": 854, "height": 480}
    tracker = CoTracker3OfflineTracker(weights / "scaled_offline.pth")
    assert tracker.needed_bytes(**size, lean=True) < 0.5 * tracker.needed_bytes(**size, lean=False)
    flat = [
        CoTracker3OnlineTracker(weights / "scaled_online.pth").needed_bytes(
            num_frames=num_frames, num_points=100, width=854, height=480, lean=False
        )
        for num_frames in (100, 1000)
    ]
    assert flat[1] < 1.2 * flat[0], "but for the result, online is flat in the number of frames"


@pytest.mark.parametrize(
    ("make", "name"),
    [(CoTracker3OfflineTracker, "cotracker3_offline"), (CoTracker3OnlineTracker, "cotracker3_online")],
)
def test_missing_weights_name_both_ways_on(
    make: type[CoTracker3OfflineTracker], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"aot\.checkpoints download {name}.*tracker=lucas_kanade"):
        make()


def test_wrong_weights_are_named(weights: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"broken\.pth"):
        CoTracker3OfflineTracker(broken).track(clip(), query((0, 18, 30)))
    torch.save({"model": {"fnet.conv1.weight": torch.zeros(1)}}, broken)
    with pytest.raises(ConfigError, match=r"broken\.pth"):
        CoTracker3OfflineTracker(broken).track(clip(), query((0, 18, 30)))


def test_what_cannot_fit_is_said_before_any_work(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.tracking.cotracker3.plan.free_bytes", lambda device: 10**6)
    source = ArraySource(moving_square(8))
    with pytest.raises(OutOfMemory, match="larger frame_interval"):
        offline(weights).track(source, query((0, 18, 30)))
    assert source.num_decoded == 0


def test_results_name_the_weights(weights: Path) -> None:
    (found,) = offline(weights).weights
    assert (found.file, found.checkpoint, found.licence) == ("scaled_offline.pth", None, None), "made up, not published"
    assert offline(weights, device="cpu").device_name.startswith("cpu")


def test_the_command_line_needs_no_torch() -> None:
    import subprocess

    code = "import sys, aot.tracking.cotracker3_offline, aot.tracking.cotracker3_online; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
