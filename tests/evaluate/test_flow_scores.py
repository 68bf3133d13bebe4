"""Scores of flow against ground truth, and of the survival of tracks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.datasets.demo.dataset import Demo
from aot.datasets.ground_truth import TrackTruth
from aot.evaluate.flow import score_flow, survival
from aot.types import ClipResult, QueryPoints
from aot.writing.reader import load
from tests.results import write_result

FRAMES = np.arange(5, dtype=np.int64)
SIZE = (256, 256)


def true_tracks(visible: list[list[int]]) -> TrackTruth:
    shown = np.array(visible, dtype=np.bool_).T
    xy = np.where(shown[..., None], np.float32(100), np.nan).astype(np.float32).repeat(2, axis=2)
    return TrackTruth(xy, shown, np.ones_like(shown))


def found(offsets: list[list[int]]) -> np.ndarray:
    """Positions that are this many px to the right of the truth."""
    xy = np.full((5, len(offsets), 2), 100, dtype=np.float32)
    xy[..., 0] += np.array(offsets).T
    return xy


@pytest.mark.parametrize(
    ("offsets", "query", "expected"),
    [
        ([[0, 0, 0, 0, 0]], 0, 1.0),
        ([[0, 0, 60, 0, 0]], 0, 1 / 4),  # a track that returns was lost nevertheless
        ([[60, 0, 0, 0, 60]], 2, 2 / 4),  # in both directions from the query
        ([[0, 0, 0, 49, 51]], 0, 3 / 4),
    ],
)
def test_a_track_survives_until_it_is_first_lost(offsets: list[list[int]], query: int, expected: float) -> None:
    truth = true_tracks([[1, 1, 1, 1, 1]])
    assert survival(found(offsets), truth, np.array([query]), FRAMES, SIZE) == pytest.approx(expected)


def test_hidden_frames_and_points_without_others_are_not_counted() -> None:
    truth = true_tracks([[1, 1, 0, 1, 1], [1, 0, 0, 0, 0]])
    xy = found([[0, 0, 90, 0, 60], [0, 90, 90, 90, 90]])
    assert survival(xy, truth, np.array([0, 0]), FRAMES, SIZE) == pytest.approx(2 / 3)
    only_queries = true_tracks([[1, 0, 0, 0, 0]])
    assert survival(found([[0] * 5]), only_queries, np.array([0]), FRAMES, SIZE) is None


def demo_result(demo_root: Path, tmp_path: Path, error_px: float) -> ClipResult:
    """Three frames of `spin` with true positions, the second frame's moved by an error to the right."""
    truth = Demo(demo_root).ground_truth("spin")
    assert truth is not None
    points = [(0, 100, 130, 1), (0, 115, 140, 1)]
    queries = QueryPoints(np.array(points, np.float32)[:, :3], np.ones(2, np.int32))
    tracks = truth.tracks(queries, np.arange(3))
    assert tracks is not None
    xy = tracks.xy.copy()
    xy[1, :, 0] += error_px
    masks = np.ones((3, 1, 240, 320), np.bool_)
    return load(write_result(tmp_path / "spin.h5", masks=masks, queries=points, xy=xy), masks=False)


@pytest.mark.parametrize("error_px", [0.0, 2.0])
def test_the_error_of_flow_is_that_of_its_ends(error_px: float, demo_root: Path, tmp_path: Path) -> None:
    truth = Demo(demo_root).ground_truth("spin")
    assert truth is not None
    score = score_flow(demo_result(demo_root, tmp_path, error_px), truth)
    assert score is not None
    assert score.num_displacements == 4
    assert score.end_point_error == pytest.approx(error_px, abs=0.15)
    assert score.within == ({1: 1.0, 3: 1.0, 5: 1.0} if not error_px else {1: 0.0, 3: 1.0, 5: 1.0})
