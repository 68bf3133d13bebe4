"""Edge cases of the offline predictor, with small networks where the network does not matter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from aot.errors import TrackingError
from aot.tracking import onednn
from aot.tracking.cotracker3 import CoTracker3, MemoryPlan, load_model, track_offline
from aot.tracking.cotracker3.sizes import HIDDEN, Precision
from aot.types import Tracks
from tests.synthetic import moving_square
from tests.tracking.cotracker3.small import small_model
from tests.tracking.cotracker3.weights import golden_weights

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = moving_square(7)
# Refinement iterations, sufficient for these tests; the golden files use six.
FEW = 2
# First, middle and last frame; corners of the 96x64 frame, and outside it.
QUERIES = np.array(
    [[0, 20, 30], [3, 40, 25], [6, 60, 40], [0, 0, 0], [6, 95, 63], [2, 95, 0], [1, -4, 70]], dtype=np.float32
)


def check(tracks: Tracks, queries: np.ndarray, num_frames: int) -> None:
    assert tracks.xy.shape == (num_frames, len(queries), 2)
    assert np.isfinite(tracks.xy).all()
    rows, own = queries[:, 0].astype(int), np.arange(len(queries))
    np.testing.assert_allclose(tracks.xy[rows, own], queries[:, 1:], atol=1e-4)
    assert tracks.visible[rows, own].all()
    for probability in (tracks.visibility, tracks.confidence):
        assert ((probability >= 0) & (probability <= 1)).all()


@pytest.mark.parametrize("backward", [False, True])
def test_queries_on_all_frames_and_borders(offline: CoTracker3, backward: bool) -> None:
    check(track_offline(offline, FRAMES, query_points=QUERIES, backward=backward, num_iters=FEW), QUERIES, 7)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("num_points", [1, 2])
@pytest.mark.parametrize("support_grid", [False, True])
def test_few_frames_and_points(offline: CoTracker3, num_frames: int, num_points: int, support_grid: bool) -> None:
    queries = np.array([[num_frames - 1, 30, 30], [0, 10, 10]], np.float32)[:num_points]
    options = {"query_points": queries, "support_grid": support_grid, "backward": True, "num_iters": FEW}
    check(track_offline(offline, moving_square(num_frames), **options), queries, num_frames)


@pytest.mark.parametrize("size", [(33, 57), (201, 40), (1, 1), (7, 300)])
@pytest.mark.parametrize("resolution", [(32, 32), (37, 53)])
def test_any_size(size: tuple[int, int], resolution: tuple[int, int]) -> None:
    model = small_model(resolution=resolution)
    frames = np.random.default_rng(0).integers(0, 255, (3, *size, 3), dtype=np.uint8)
    queries = np.array([[0, 0, 0], [1, size[1] - 1, size[0] - 1], [2, size[1] / 2, size[0] / 3]], np.float32)
    check(track_offline(model, frames, query_points=queries, num_iters=FEW), queries, 3)


def blocks(*lengths: int) -> Iterator[np.ndarray]:
    start = 0
    for length in lengths:
        yield FRAMES[start : start + length]
        start += length


@pytest.mark.parametrize("lengths", [(7,), (1, 1, 1, 1, 1, 1, 1), (3, 4), (5, 2)])
@pytest.mark.parametrize("num_frames", [7, None])
def test_stream_gives_same_tracks_as_array(
    offline: CoTracker3, lengths: tuple[int, ...], num_frames: int | None
) -> None:
    expected = track_offline(offline, FRAMES, query_points=QUERIES, num_iters=FEW)
    found = track_offline(offline, blocks(*lengths), query_points=QUERIES, num_iters=FEW, num_frames=num_frames)
    np.testing.assert_allclose(found.xy, expected.xy, atol=1e-3)
    np.testing.assert_allclose(found.visibility, expected.visibility, atol=1e-4)


def test_backward_equals_tracking_the_reversed_clip(offline: CoTracker3) -> None:
    options = {"support_grid": False, "num_iters": FEW}  # support points would be on frame 0 of the reversed clip
    forwards = track_offline(offline, FRAMES, query_points=QUERIES, **options)
    both = track_offline(offline, FRAMES, query_points=QUERIES, backward=True, **options)
    mirrored = (QUERIES * [-1, 1, 1] + [6, 0, 0]).astype(np.float32)
    reverse = track_offline(offline, FRAMES[::-1], query_points=mirrored, **options)
    before = np.arange(7)[:, None] < QUERIES[:, 0]
    np.testing.assert_allclose(both.xy[before], reverse.xy[::-1][before], atol=1e-3)
    np.testing.assert_allclose(both.visibility[before], reverse.visibility[::-1][before], atol=1e-4)
    np.testing.assert_array_equal(both.xy[~before], forwards.xy[~before])
    assert np.abs(both.xy[before] - forwards.xy[before]).max() > 0.01


def test_support_points_influence_tracks_and_are_not_returned(offline: CoTracker3) -> None:
    with_support, without = (
        track_offline(offline, FRAMES, query_points=QUERIES, support_grid=support, num_iters=FEW)
        for support in (True, False)
    )
    assert with_support.xy.shape == without.xy.shape
    assert np.abs(with_support.xy - without.xy).max() > 1e-3


def test_grid_with_and_without_mask(offline: CoTracker3) -> None:
    assert track_offline(offline, FRAMES, grid_size=4, num_iters=FEW).xy.shape == (7, 16, 2)
    mask = np.zeros((64, 96), np.bool_)
    mask[:, :48] = True
    masked = track_offline(offline, FRAMES, grid_size=4, mask=mask, query_frame=2, num_iters=FEW)
    assert masked.xy.shape == (7, 8, 2)
    assert (masked.xy[2, :, 0] < 48).all()


def test_mask_between_grid_points_raises(offline: CoTracker3) -> None:
    mask = np.zeros((64, 96), np.bool_)
    mask[30:32, 20:22] = True
    with pytest.raises(TrackingError, match="no point of the 4x4 grid is inside the mask of 4 px; use a larger"):
        track_offline(offline, FRAMES, grid_size=4, mask=mask)


def test_visibility_threshold_applies(offline: CoTracker3) -> None:
    tracks = track_offline(offline, FRAMES, query_points=QUERIES[:1], visibility_threshold=0.3, num_iters=FEW)
    np.testing.assert_array_equal(tracks.visible[1:], tracks.visibility[1:] > 0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "both or neither of query_points and grid_size"),
        ({"query_points": QUERIES, "grid_size": 3}, "both or neither of query_points and grid_size"),
        (
            {"query_points": QUERIES + np.float32([1, 0, 0])},
            r"query frames \[7, 7\] are outside the clip, expected 0\.\.6",
        ),
    ],
)
def test_invalid_arguments_are_refused(offline: CoTracker3, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        track_offline(offline, FRAMES, **options)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((0, 64, 96, 3), np.uint8), "frames: got none"),
        (iter([]), "frames: got none"),
        (np.zeros((2, 64, 96, 3), np.float32), r"float32, expected \(T, H, W, 3\) uint8"),
        (np.zeros((2, 3, 64, 96), np.uint8), r"got \(2, 3, 64, 96\) uint8, expected"),
    ],
)
def test_invalid_frames_are_refused(offline: CoTracker3, frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        track_offline(offline, frames, query_points=QUERIES[:1])


def test_recompute_refuses_an_iterator(offline: CoTracker3) -> None:
    with pytest.raises(ValueError, match='features="recompute" requires frames that can be read repeatedly'):
        track_offline(offline, blocks(7), query_points=QUERIES, plan=MemoryPlan(features="recompute"))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "max_px"), [("bf16", 1.0), ("fp16", 0.2)])
def test_lower_precisions_are_close(large: CoTracker3, precision: Precision, max_px: float) -> None:
    options = {"query_points": QUERIES[:1], "num_iters": FEW, "support_grid": False}
    exact = track_offline(large, FRAMES[:2], **options)
    model = load_model(golden_weights(), resolution=large.resolution, precision=precision)
    rounded = track_offline(model, FRAMES[:2], **options)
    check(rounded, QUERIES[:1], 2)
    distance = np.linalg.norm(rounded.xy - exact.xy, axis=2)
    assert 0 < distance.max() < max_px


def test_model_call_equals_predictor(offline: CoTracker3) -> None:
    """With frames of the model's size, except on the query frames, where the predictor returns the query."""
    frames = moving_square(5, width=64, height=48)
    queries = np.array([[0, 20, 30], [4, 33, 21]], np.float32)
    coords, visibility, confidence = offline(np.moveaxis(frames, -1, 1), queries)
    tracks = track_offline(offline, frames, query_points=queries, support_grid=False)
    np.testing.assert_allclose(coords[1:4], tracks.xy[1:4], atol=1e-3)
    np.testing.assert_allclose(visibility, tracks.visibility, atol=1e-5)
    np.testing.assert_allclose(confidence, tracks.confidence, atol=1e-5)


@pytest.mark.long
def test_compiled_network_gives_same_tracks(large: CoTracker3) -> None:
    """Quick counterpart: `test_compiling_selects_the_networks_and_their_plain_layers`."""
    model = load_model(golden_weights(), resolution=large.resolution, compile=True)
    expected, found = (track_offline(each, FRAMES, query_points=QUERIES) for each in (large, model))
    assert np.abs(expected.xy - found.xy).max() < 0.01


def test_compiling_selects_the_networks_and_their_plain_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled, without the minutes that it takes: every block of both networks, and no private operator."""
    compiled: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **options: compiled.append((type(self).__name__, options))
    )
    model = load_model(golden_weights(), resolution=(48, 64), compile=True)
    blocks = [name for name, options in compiled if options == {"dynamic": True}]
    assert sorted(blocks) == ["_CrossBlock"] * 6 + ["_SelfBlock"] * 6
    assert [name for name, options in compiled if not options] == ["FeatureNet"]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(onednn, "_onednn", None)
    exported = model.updateformer(torch.zeros(1, 1, HIDDEN), 64)
    assert exported.shape == (1, 1, 4)
