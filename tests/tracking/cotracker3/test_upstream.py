"""The engine compared with the upstream package on the same real frames with the same weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from aot.decoding import open_source
from aot.tracking.cotracker3 import load_model, track_offline, track_online
from aot.types import Clip, Tracks, UInt8Array
from tests.shared_data import CLIPS, needs_shared_data
from tests.tracking.cotracker3.upstream import offline_tracks, online_tracks, upstream_importable
from tests.tracking.cotracker3.weights import golden_weights

pytestmark = [pytest.mark.slow, needs_shared_data]

MAX_PX = 0.01
MAX_PROBABILITY = 1e-3
NUM_FRAMES = 20


@pytest.fixture(scope="module", autouse=True)
def _upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with upstream_importable(tmp_path_factory.mktemp("upstream")):
        yield


@pytest.fixture(scope="module")
def frames() -> UInt8Array:
    """Real frames at source size, which differs from the model's."""
    with open_source(Clip(clip_id="teapot", source=CLIPS / "teapot" / "clip.mp4")) as source:
        return source.read(source.index[: 3 * NUM_FRAMES : 3]).rgb


@pytest.fixture(scope="module")
def queries(frames: UInt8Array) -> np.ndarray:
    rng = np.random.default_rng(4)
    xy = rng.uniform(0, [frames.shape[2] - 1, frames.shape[1] - 1], (12, 2))
    return np.column_stack([rng.integers(0, NUM_FRAMES, 12), xy]).astype(np.float32)


def check(tracks: Tracks, xy: np.ndarray, visible: np.ndarray, score: np.ndarray, threshold: float) -> None:
    assert np.abs(tracks.xy - xy).max() < MAX_PX
    is_undecided = np.abs(score - threshold) < MAX_PROBABILITY
    assert ((tracks.visible == visible) | is_undecided).all()


@pytest.mark.parametrize("backward", [False, True])
def test_offline_points(frames: UInt8Array, queries: np.ndarray, backward: bool) -> None:
    xy, visible = offline_tracks(frames, queries, backward_tracking=backward)
    tracks = track_offline(load_model(golden_weights()), frames, query_points=queries, backward=backward)
    check(tracks, xy, visible, tracks.visibility, 0.9)


def test_offline_masked_grid(frames: UInt8Array) -> None:
    import torch

    mask = np.zeros(frames.shape[1:3], np.uint8)
    mask[100:300, 250:600] = 1
    segm_mask = torch.from_numpy(mask)[None, None].float()
    xy, visible = offline_tracks(frames, grid_size=9, segm_mask=segm_mask, grid_query_frame=3)
    tracks = track_offline(load_model(golden_weights()), frames, grid_size=9, mask=mask, query_frame=3)
    check(tracks, xy, visible, tracks.visibility, 0.9)


@pytest.mark.parametrize("support_grid", [False, True])
def test_online_points(frames: UInt8Array, queries: np.ndarray, support_grid: bool) -> None:
    early = queries[queries[:, 0] < 16]  # those in the first window
    xy, visible = online_tracks(frames, early, add_support_grid=support_grid)
    model = load_model(golden_weights(mode="online"), mode="online")
    tracks = track_online(model, frames, early, support_grid=support_grid)
    check(tracks, xy, visible, tracks.visibility * tracks.confidence, 0.6)
