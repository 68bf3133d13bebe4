"""The engine compared with results of the upstream package in fp32 on a CPU, with reproducible weights.

The files in the repository are the quick counterparts of those in ../shared, whose tests are marked long. So are two
files whose quick counterparts are live comparisons on drawn frames in test_upstream.py:

    predictor_grid_mask_backward    test_offline_masked_grid_drawn (backward)
    predictor_online_late_support   test_online_points_drawn (support)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.tracking.cotracker3 import CoTracker3, load_model, track_offline, track_online
from aot.tracking.cotracker3.model import Mode
from aot.types import Tracks
from tests.shared_data import SHARED_DATA
from tests.tracking.cotracker3.weights import golden_weights

HERE = Path(__file__).parent / "golden"
SHARED = SHARED_DATA.parent / "golden" / "cotracker3"

MAX_PX = 0.01
MAX_PROBABILITY = 1e-3

LONG = ("predictor_grid_mask_backward", "predictor_online_late_support")
OFFLINE_THRESHOLD, ONLINE_THRESHOLD = 0.9, 0.6


def golden(name: str) -> dict[str, Any]:
    path = HERE / f"{name}.npz"
    if not path.exists():
        path = SHARED / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"{name}.npz is only in ../shared")
    with np.load(path) as file:
        return {key: file[key] if file[key].ndim else file[key].item() for key in file}


def parametrize_files(*names: str) -> pytest.MarkDecorator:
    """Run a test for each of these golden files."""
    is_quick = {name: (HERE / f"{name}.npz").exists() and name not in LONG for name in names}
    return pytest.mark.parametrize(
        "name",
        [pytest.param(name, marks=pytest.mark.slow if is_quick[name] else pytest.mark.long) for name in names],
    )


def model_of(expected: dict[str, Any], mode: Mode) -> CoTracker3:
    weights = golden_weights(expected["seed"], mode=mode, window_len=expected["window_len"])
    resolution = tuple(int(side) for side in expected["resolution"])
    return load_model(weights, mode=mode, window_len=expected["window_len"], resolution=resolution)


def check_tracks(tracks: Tracks, expected: dict[str, Any], score: np.ndarray, threshold: float, rows: Any) -> None:
    """Positions within the tolerance; `visible` equal except where the score is close to the threshold."""
    assert tracks.xy.shape == expected["tracks"].shape
    assert np.abs(tracks.xy - expected["tracks"])[rows].max() < MAX_PX
    is_undecided = np.abs(score - threshold) < MAX_PROBABILITY
    assert ((tracks.visible == expected["visible"]) | is_undecided)[rows].all()


@parametrize_files("model_offline_t24", "model_offline_t60", "model_offline_t75", "model_offline_full")
def test_model(name: str) -> None:
    expected = golden(name)
    video = np.moveaxis(expected["video"], -1, 1)
    coords, visibility, confidence = model_of(expected, "offline")(
        video, expected["queries"], num_iters=expected["iters"]
    )
    assert np.abs(coords.numpy() - expected["coords"]).max() < MAX_PX
    assert np.abs(visibility.numpy() - expected["visibility"]).max() < MAX_PROBABILITY
    assert np.abs(confidence.numpy() - expected["confidence"]).max() < MAX_PROBABILITY


@parametrize_files(
    "predictor_grid_mask",
    "predictor_grid_mask_backward",
    "predictor_grid_mask_fine",
    "predictor_points_backward",
)
def test_offline_predictor(name: str) -> None:
    expected = golden(name)
    tracks = track_offline(
        model_of(expected, "offline"),
        expected["video"],
        query_points=expected.get("queries"),
        grid_size=expected["grid_size"] or None,
        mask=expected.get("mask"),
        query_frame=expected["query_frame"],
        backward=expected["backward"],
    )
    check_tracks(tracks, expected, tracks.visibility, OFFLINE_THRESHOLD, np.s_[:])


@parametrize_files(
    "predictor_online",
    "predictor_online_late",
    "predictor_online_late_support",
    "predictor_online_nofirst",
    "predictor_online_short",
    "predictor_online_support",
)
def test_online_predictor(name: str) -> None:
    expected = golden(name)
    tracks = track_online(
        model_of(expected, "online"),
        expected["video"],
        expected["queries"],
        support_grid=expected["add_support_grid"],
    )
    first = first_window(expected["queries"][:, 0])
    is_estimated = np.arange(len(expected["video"]))[:, None] >= first
    assert not tracks.visible[~is_estimated].any()
    score = tracks.visibility * tracks.confidence
    check_tracks(tracks, expected, score, ONLINE_THRESHOLD, is_estimated)


def first_window(query_frames: np.ndarray) -> np.ndarray:
    """Start of the first window (16 frames, every 8) that contains each frame."""
    return np.maximum(0, np.ceil((query_frames - 15) / 8)) * 8


def test_state_dict_has_the_keys_and_shapes_of_the_released_weights() -> None:
    listed = dict(line.split(" ", 1) for line in (HERE / "state_dict_shapes.txt").read_text().splitlines())
    found = {key: str(tuple(value.shape)) for key, value in golden_weights().items()}
    assert found == listed
