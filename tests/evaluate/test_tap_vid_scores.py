"""Queries and scores equal those of TAP-Vid's own evaluator, from its pickle to the scores of a result file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from aot.datasets.tap_vid import TapVid
from aot.evaluate.clip import evaluate_clip
from aot.evaluate.tracks import THRESHOLDS
from tests.evaluate.tap_vid_cases import NUM_CASES, RASTER, SCORES, make_case
from tests.results import write_result


@pytest.mark.parametrize("number", range(NUM_CASES))
def test_queries_and_scores_equal_the_official_ones(tmp_path: Path, number: int) -> None:
    case, official = make_case(number), json.loads(SCORES.read_text())[number]
    (width, height), num_frames = case.size, case.points.shape[1]
    video = np.zeros((num_frames, height, width, 3), dtype=np.uint8)
    example = {"video": video, "points": case.points, "occluded": case.occluded}
    (tmp_path / "davis.pkl").write_bytes(pickle.dumps({"goat": example}))
    dataset = TapVid(tmp_path / "davis.pkl", tmp_path / "unpacked", queries=case.mode)
    (clip,) = dataset.clips()
    txy = np.array(clip.prompts[0].query_points)
    raster = np.column_stack([txy[:, 0], (txy[:, :0:-1] + 0.5) / [height, width] * RASTER])
    np.testing.assert_allclose(raster, official["queries"], atol=1e-3)

    scale = np.array([width, height])
    distance = np.abs(case.points[:, txy[:, 0].astype(int)] * scale - 0.5 - txy[:, 1:]).sum(axis=2)
    point = distance.argmin(axis=0)
    path = write_result(
        tmp_path / "a.h5",
        masks=np.zeros((num_frames, 1, height, width), dtype=np.bool_),
        queries=[(*query, 1) for query in txy.tolist()],
        xy=(case.predicted[point] * scale - 0.5).swapaxes(0, 1),
        visible=~case.predicted_occluded[point].T,
    )
    truth = dataset.ground_truth("goat")
    assert truth is not None
    found = evaluate_clip(path, truth).points
    assert found is not None
    scores = {
        "occlusion_accuracy": found.occlusion_accuracy,
        "average_jaccard": found.average_jaccard,
        "average_pts_within_thresh": found.average_within,
        **{f"pts_within_{threshold}": found.within[threshold] for threshold in THRESHOLDS},
        **{f"jaccard_{threshold}": found.jaccard[threshold] for threshold in THRESHOLDS},
    }
    assert scores == pytest.approx(official["scores"], abs=1e-9)


def test_cases_contain_distances_equal_to_each_threshold() -> None:
    """Otherwise `<` and `<=` would give the same scores."""
    cases = [make_case(number) for number in range(NUM_CASES)]
    distances = [np.hypot(*np.moveaxis((case.predicted - case.points) * RASTER, 2, 0)) for case in cases]
    counted = np.concatenate([distance[~case.occluded] for case, distance in zip(cases, distances)])
    assert all((counted == threshold).sum() > 3 for threshold in THRESHOLDS)
    assert {case.mode for case in cases} == {"first", "strided"}
