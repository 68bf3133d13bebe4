"""The engine compared with results of the authors' network in fp32 on a CPU, with reproducible weights.

The files in the repository are the quick counterparts of those in ../shared.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.tracking.tapnext import track
from aot.tracking.tapnext.heads import Estimate, Prediction, decoded
from tests.shared_data import SHARED_DATA
from tests.tracking.tapnext.small import HERE, golden_model, points_of

SHARED = SHARED_DATA.parent / "golden" / "tapnext"
MAX_PX, MAX_LOGIT, MAX_CERTAINTY = 0.01, 1e-3, 1e-4


def golden(name: str) -> dict[str, np.ndarray]:
    folder = next((each for each in (HERE, SHARED) if (each / f"{name}.npz").exists()), None)
    if folder is None:
        pytest.skip(f"{name}.npz is only in ../shared")
    with np.load(Path(folder) / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    "name",
    [
        "whole_small",
        "predictor_small",
        "online_small",
        "online_small_fine",
        pytest.param("online_full", marks=pytest.mark.slow),
    ],
)
def test_tracks_equal_those_of_the_authors_network(name: str) -> None:
    expected = golden(name)
    video = expected["video"]
    height, width = video.shape[1:3]
    image_size = int(expected["image_size"][0])
    model = golden_model(expected, input_resolution=image_size if name == "predictor_small" else height)
    tracks = track(model, video, points_of(expected))
    xy = expected["tracks"][..., ::-1] * np.array([width / 256, height / 256]) - 0.5
    is_pinned = np.arange(len(video))[:, None] == expected["queries"][:, 0]
    assert np.abs(tracks.xy - xy)[~is_pinned].max() < MAX_PX
    assert np.abs(tracks.confidence - expected["certainty"]).max() < MAX_CERTAINTY
    with np.errstate(divide="ignore"):
        logits = np.log(tracks.visibility.astype(np.float64) / (1 - tracks.visibility.astype(np.float64)))
    is_exact = np.abs(expected["visible_logits"]) < 8  # beyond, a probability in float32 does not give its logit
    assert np.abs(logits - expected["visible_logits"])[is_exact].max() < MAX_LOGIT


@pytest.mark.parametrize("name", ["whole_small", "predictor_small", "online_small", "online_small_fine"])
def test_logits_of_positions_equal_those_of_the_authors_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the points that have begun; they come first in the estimates, in the order of their queries' frames."""
    expected = golden(name)
    found: list[np.ndarray] = []

    def record(prediction: Prediction) -> Estimate:
        found.append(prediction.logits.numpy().copy())
        return decoded(prediction)

    monkeypatch.setattr("aot.tracking.tapnext.session.decoded", record)
    height, image_size = expected["video"].shape[1], int(expected["image_size"][0])
    model = golden_model(expected, input_resolution=image_size if name == "predictor_small" else height)
    track(model, expected["video"], points_of(expected))
    order = np.argsort(expected["queries"][:, 0], kind="stable")
    for row, logits in enumerate(found):
        begun = order[: int((expected["queries"][:, 0] <= row).sum())]
        np.testing.assert_allclose(logits[: len(begun)], expected["track_logits"][row, begun], atol=MAX_LOGIT, rtol=0)
    assert len(found) == len(expected["video"])
