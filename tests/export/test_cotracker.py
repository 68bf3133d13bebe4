"""Exports in the layout of CoTracker's outputs, and resampling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.export.base import ExportedClip
from aot.export.cotracker import CotrackerExporter
from aot.export.options import ExportOptions
from aot.runs.resampling import fractional_rows, nearest_rows, scaled
from tests.results import write_result


@pytest.fixture
def clip(tmp_path: Path) -> ExportedClip:
    """Three frames of 40x20 px with two points: one moves by 4 px per frame, one is lost on the last frame."""
    xy = np.array([[(4 * t, 10), (20, 5)] for t in range(3)], dtype=np.float32)
    visible = np.array([[True, True], [True, True], [True, False]])
    masks = np.ones((3, 1, 20, 40), dtype=np.bool_)
    path = write_result(tmp_path / "a.h5", masks=masks, queries=[(0, 0, 10, 1), (0, 20, 5, 1)], xy=xy, visible=visible)
    return ExportedClip("a", path)


def test_npz_has_a_batch_axis_and_validity(clip: ExportedClip, tmp_path: Path) -> None:
    with np.load(CotrackerExporter(ExportOptions()).export(clip, tmp_path)) as arrays:
        tracks, visibility = arrays["tracks"], arrays["visibility"]
    assert (tracks.shape, tracks.dtype) == ((1, 3, 2, 2), np.float32)
    assert (visibility.shape, visibility.dtype) == ((1, 3, 2), np.bool_)
    assert np.array_equal(tracks[0], clip.result.tracks.xy)
    assert np.array_equal(visibility[0], clip.result.lifetimes.valid)


def test_paired_files_are_resampled_in_time_and_space(clip: ExportedClip, tmp_path: Path) -> None:
    options = ExportOptions(paired=True, num_frames=5, size=(80, 20))
    CotrackerExporter(options).export(clip, tmp_path)
    tracks, visibility = np.load(tmp_path / "a_tracks.npy"), np.load(tmp_path / "a_visibility.npy")
    assert tracks.shape == (1, 5, 2, 2)
    assert tracks[0, :, 0].tolist() == [[2 * (2 * i + 0.5) - 0.5, 10] for i in range(5)]
    assert visibility[0, :, 1].tolist() == [True, True, True, True, False], "the earlier one of equally near frames"


def test_edges_of_resized_images_coincide() -> None:
    edges = np.array([[-0.5, -0.5], [39.5, 19.5]], dtype=np.float32)
    assert scaled(edges, (40, 20), (256, 256)).tolist() == [[-0.5, -0.5], [255.5, 255.5]]


def test_frames_of_a_resampled_clip_begin_and_end_with_it() -> None:
    assert nearest_rows(fractional_rows(np.arange(26) / 30, 81))[[0, 40, 80]].tolist() == [0, 12, 25]
    assert nearest_rows(fractional_rows(np.array([2.0]), 3)).tolist() == [0, 0, 0]


def test_frames_are_resampled_by_time() -> None:
    uneven = np.array([1.0, 1.1, 1.2, 2.0])
    np.testing.assert_allclose(fractional_rows(uneven, 6), [0, 2, 2.25, 2.5, 2.75, 3])
    np.testing.assert_allclose(fractional_rows(np.arange(9) / 25, 5), [0, 2, 4, 6, 8])
