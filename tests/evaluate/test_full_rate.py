"""Decimated results at the full frame rate of their source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import aot
from aot.evaluate.full_rate import full_rate_frames, held_rows, tracks_at
from tests.results import write_result

INDEX = [0, 4, 8]


@pytest.fixture
def result(tmp_path: Path) -> aot.ClipResult:
    """A point that moves right by 1 px per source frame, hidden on frame 4; every fourth of 10 frames is kept."""
    xy = np.zeros((3, 1, 2))
    xy[:, 0, 0] = INDEX
    path = write_result(
        tmp_path / "a.h5",
        masks=np.zeros((3, 1, 4, 4), dtype=np.bool_),
        queries=[(0, 0, 0, 1)],
        xy=xy,
        visible=np.array([[True], [False], [True]]),
        index=INDEX,
        num_source_frames=10,
        attributes={"frame_interval": 4},
    )
    return aot.load(path)


def test_a_run_covers_all_frames_of_the_source(result: aot.ClipResult) -> None:
    assert full_rate_frames(result).tolist() == list(range(10))


def test_a_time_range_ends_with_the_last_kept_frame(result: aot.ClipResult) -> None:
    result.attributes["num_source_frames"] = 100
    assert full_rate_frames(result).tolist() == list(range(9))


def test_masks_are_held_between_kept_frames() -> None:
    frames = np.array([0, 3, 4, 7, 8, 9], dtype=np.int64)
    assert held_rows(np.array(INDEX, dtype=np.int64), frames).tolist() == [0, 0, 1, 1, 2, 2]
    assert held_rows(np.array([5], dtype=np.int64), frames).tolist() == [0] * 6


def test_tracks_are_interpolated_and_marked(result: aot.ClipResult) -> None:
    tracks = tracks_at(result, np.arange(10, dtype=np.int64))
    assert tracks.xy[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 8], "held after the last kept frame"
    assert tracks.interpolated.tolist() == [frame not in INDEX for frame in range(10)]
    assert np.flatnonzero(~tracks.visible[:, 0]).tolist() == [3, 4, 5, 6], (
        "visibility is that of the nearest kept frame"
    )
