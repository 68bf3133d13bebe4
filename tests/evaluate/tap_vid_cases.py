"""Seeded point tracks for TAP-Vid's own evaluator, and the numbers that it gave for them.

`tests/data/tap_vid_scores.json` contains the query points and scores that `tapnet/tapvid/evaluation_datasets.py` of
https://github.com/google-deepmind/tapnet (commit 025fba61) gives for the cases of this module. To make it again:

    python -m tests.evaluate.tap_vid_cases PATH/TO/evaluation_datasets.py
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aot.datasets.ground_truth import QueryMode

SCORES = Path(__file__).parents[1] / "data" / "tap_vid_scores.json"
NUM_CASES = 12
RASTER = 256
# Fractions of the first two sizes are exact in binary, so that distances can be equal to a threshold.
_SIZES = ((64, 32), (32, 128), (60, 34))


@dataclass(frozen=True)
class TapVidCase:
    """The annotated points of one video, and positions that a tracker might predict for them."""

    mode: QueryMode
    size: tuple[int, int]
    """Width and height of the video in px."""
    points: np.ndarray
    """(N, T, 2) float64, fractions of width and height as in TAP-Vid's pickles."""
    occluded: np.ndarray
    """(N, T) bool."""
    predicted: np.ndarray
    """(N, T, 2) float64, fractions; many are outside the frame."""
    predicted_occluded: np.ndarray
    """(N, T) bool."""


def make_case(number: int) -> TapVidCase:
    """A case by its number: modes and sizes alternate; two of three sizes have distances that equal a threshold."""
    rng = np.random.default_rng(number)
    width, height = _SIZES[number % len(_SIZES)]
    num_points, num_frames = 3 + number % 4, 7 + number % 5
    shape = (num_points, num_frames)
    if number % len(_SIZES) < 2:
        raster = rng.integers(0, RASTER + 1, (*shape, 2)).astype(np.float64)
        offset = np.zeros((*shape, 2))
        axis = rng.integers(0, 2, shape)[..., None]
        distance = rng.choice([0, 0.5, 1, 1.5, 2, 4, 8, 15.5, 16, 300], shape) * rng.choice([-1, 1], shape)
        np.put_along_axis(offset, axis, distance[..., None], axis=2)
    else:
        raster = rng.uniform(0, RASTER, (*shape, 2))
        offset = rng.normal(0, 1, (*shape, 2)) * 10 ** rng.uniform(-1, 2, (*shape, 1))
    occluded = rng.random(shape) < 0.4
    occluded[:, -1] = False
    if number % 4 == 3:
        occluded[1] = True  # never visible
        raster[1, ::2] = -40
    return TapVidCase(
        mode="first" if number % 2 else "strided",
        size=(width, height),
        points=raster / RASTER,
        occluded=occluded,
        predicted=(raster + offset) / RASTER,
        predicted_occluded=rng.random(shape) < 0.3,
    )


def official_scores(case: TapVidCase, official: Any) -> dict[str, Any]:
    """Query points ([t, y, x] on the raster) and scores by TAP-Vid's own module."""
    sample = official.sample_queries_first if case.mode == "first" else official.sample_queries_strided
    found = sample(case.occluded, case.points * RASTER, np.zeros((case.points.shape[1], 1, 1, 3)))
    chosen = np.flatnonzero(~case.occluded.all(axis=1)) if case.mode == "first" else found["trackgroup"][0]
    scores = official.compute_tapvid_metrics(
        found["query_points"], found["occluded"], found["target_points"],
        case.predicted_occluded[chosen][None], case.predicted[chosen][None] * RASTER, case.mode,
    )  # fmt: skip
    return {
        "queries": found["query_points"][0].round(4).tolist(),
        "scores": {name: float(value[0]) for name, value in scores.items()},
    }


def _load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("evaluation_datasets", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is not a Python file; expected evaluation_datasets.py of tapnet")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    evaluator = _load(sys.argv[1])
    cases = [official_scores(make_case(number), evaluator) for number in range(NUM_CASES)]
    SCORES.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
