"""The engine compared with results of the authors' network in fp32 on a CPU, with reproducible weights."""

from __future__ import annotations

import numpy as np
import pytest

from aot.tracking.tapnext import load_model, track
from tests.shared_data import SHARED_DATA
from tests.tracking.tapnext.weights import golden_weights, shapes_of

GOLDEN = SHARED_DATA.parent / "golden" / "tapnext"
MAX_PX, MAX_PROBABILITY = 0.01, 1e-4

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not GOLDEN.is_dir(), reason="no ../shared/golden/tapnext")]


@pytest.mark.parametrize("name", ["online_small", "online_small_fine", "whole_small", "predictor_small", "online_full"])
def test_tracks_equal_those_of_the_authors_network(name: str) -> None:
    with np.load(GOLDEN / f"{name}.npz") as file:
        expected = dict(file)
    image_size, num_heads = int(expected["image_size"][0]), int(expected["num_heads"])
    shapes = shapes_of(
        (GOLDEN / "state_dict_shapes.txt").read_text().splitlines(),
        width=int(expected["width"]),
        depth=int(expected["depth"]),
        num_heads=num_heads,
        num_tokens=(image_size // 8) ** 2,
    )
    video, queries = expected["video"], expected["queries"]
    height, width = video.shape[1:3]
    model = load_model(
        golden_weights(shapes, int(expected["seed"])),
        image_size=image_size,
        num_heads=num_heads,
        input_resolution=image_size if name == "predictor_small" else height,
        precision="fp32",
    )
    # Source px have their centres at integers; the network's space is corner-based.
    points = np.stack(
        [queries[:, 0], queries[:, 2] * width / image_size - 0.5, queries[:, 1] * height / image_size - 0.5]
    )
    tracks = track(model, video, points.T.astype(np.float32))
    xy = expected["tracks"][..., ::-1] * np.array([width / 256, height / 256]) - 0.5
    is_pinned = np.arange(len(video))[:, None] == queries[:, 0]
    assert np.abs(tracks.xy - xy)[~is_pinned].max() < MAX_PX
    assert np.abs(tracks.confidence - expected["certainty"]).max() < MAX_PROBABILITY
    assert np.abs(tracks.visibility - 1 / (1 + np.exp(-expected["visible_logits"]))).max() < MAX_PROBABILITY
