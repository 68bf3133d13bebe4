"""Complete runs on real clips with checked prompts and human ground truth (skipped without ../shared)."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aot
from aot.run import main
from benchmarks.real_clips import manifest_of
from tests.command_line import EMBEDDED_MODELS
from tests.shared_data import AWKWARD, CLIPS, DAVIS_CLIPS, SHARED_DATA, needs_shared_data

pytestmark = [needs_shared_data, pytest.mark.slow]

# Options of tests that check neither the other masks nor the positions of points.
MASKS_ON_PROMPT_FRAMES = "segmenter.propagate=false"
ROUGH_TRACKS = ("tracker.max_side_px=160", "tracker.max_helpers=0")

# Broken videos: each must fail on its own, with this error class.
BROKEN = {
    "audio_only_mp4/audio_only": "decode",
    "corrupted_mp4/corrupted": "decode",
    "not_a_video_mp4/not_a_video": "decode",
    "size_changes_ts/size_changes": "decode",
    "truncated_faststart_mp4/truncated_faststart": "decode",
    "truncated_no_moov_mp4/truncated_no_moov": "decode",
    "video-with-dash-_mp4/-video-with-dash-": "prompt",  # one pixel: the points are outside the frame
    "zero_bytes_mp4/zero_bytes": "decode",
}


def run(root: Path, manifest: dict[str, Any], folder: Path, *overrides: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Run the videos below `root`; returns the exit code and the rows of summary.csv by clip id."""
    (folder / "prompts.json").write_text(json.dumps(manifest))
    exit_code = main(
        [
            "dataset=videos", f"dataset.root='{root}'", f"dataset.prompts='{folder}/prompts.json'",
            f"output.root='{folder}'", "output.overlay=false", "output.report=false", *EMBEDDED_MODELS, *overrides,
        ]
    )  # fmt: skip
    with next(folder.glob("videos/*/summary.csv")).open(newline="") as file:
        return exit_code, {row["clip_id"]: row for row in csv.DictReader(file)}


def test_results_have_the_frames_and_times_of_the_source(tmp_path: Path) -> None:
    expected = {"book": 235, "pillow": 147, "teapot": 110, "teddy": 141}
    names = ",".join(f"{name}/clip" for name in expected)
    chosen = [f"dataset.include=[{names}]", MASKS_ON_PROMPT_FRAMES, *ROUGH_TRACKS]
    exit_code, rows = run(CLIPS, manifest_of(CLIPS, None), tmp_path, *chosen)
    assert exit_code == 0
    assert {name: int(rows[f"{name}/clip"]["frames"]) for name in expected} == expected
    results = {name: aot.load(next(tmp_path.glob(f"videos/*/clips/{name}/clip.h5"))) for name in expected}
    steps = np.diff(results["book"].time)
    assert results["book"].time[0] == pytest.approx(0.25, abs=1e-6)
    assert set(np.round(steps, 3)) == {0.05, 0.1}
    for name, result in results.items():
        assert result.masks is not None
        assert result.masks[0].any(axis=(1, 2)).all(), f"{name}: an object has no mask on its prompt frame"
        assert len(result.query) >= 20


def masks_pattern() -> str:
    return f"dataset.masks_pattern='{DAVIS_CLIPS}/{{folder}}/Annotations'"


@pytest.mark.long
def test_embedded_masks_beat_copying_the_first_mask(tmp_path: Path) -> None:
    """Quick counterpart: `test_embedded_masks_of_two_clips`."""
    exit_code, rows = run(DAVIS_CLIPS, manifest_of(DAVIS_CLIPS, None), tmp_path, masks_pattern())
    assert exit_code == 0
    assert len(rows) == 12
    assert np.mean([float(row["J"]) for row in rows.values()]) >= 0.55  # copying the first mask gives 0.28


def test_embedded_masks_of_two_clips(tmp_path: Path) -> None:
    copied = {"car-shadow": 0.404, "horsejump-high": 0.138}  # J of copying the first mask
    names = ",".join(f"{name}/clip" for name in copied)
    chosen = [masks_pattern(), f"dataset.include=[{names}]", "query_points.num_points=20"]
    exit_code, rows = run(DAVIS_CLIPS, manifest_of(DAVIS_CLIPS, None), tmp_path, *chosen)
    assert exit_code == 0
    for name, score in copied.items():
        assert float(rows[f"{name}/clip"]["J"]) > score + 0.15


PLAIN = {"bear": 0.67, "camel": 0.71, "horsejump-high": 0.35}
"""PCK of plain Lucas-Kanade."""


@pytest.mark.parametrize(
    "name", ["horsejump-high", *(pytest.param(name, marks=pytest.mark.long) for name in ("bear", "camel"))]
)
def test_embedded_tracks_beat_plain_lucas_kanade(name: str, tmp_path: Path) -> None:
    """Quick counterpart of the longer clips: the clip that is hardest to track."""
    tracks = SHARED_DATA / "tracks"
    chosen = [masks_pattern(), f"dataset.tracks_pattern='{tracks}/badja_{{folder}}/tracks.npz'", MASKS_ON_PROMPT_FRAMES]
    chosen.append(f"dataset.include=[{name}/clip]")
    exit_code, rows = run(DAVIS_CLIPS, manifest_of(DAVIS_CLIPS, tracks), tmp_path, *chosen)
    assert exit_code == 0
    assert float(rows[f"{name}/clip"]["PCK"]) > PLAIN[name]


def test_unusual_videos_run_and_only_broken_ones_fail(tmp_path: Path) -> None:
    # Query points only: a box in a fixed corner would not contain an object in all of these videos.
    manifest = {"clips": {"*": {"objects": [{"id": 1, "query_points": [[0, 20, 20], [0, 30, 25]]}]}}}
    exit_code, rows = run(AWKWARD, manifest, tmp_path, "segmenter=none", *ROUGH_TRACKS)
    assert exit_code == 1
    failures = {path: json.loads(path.read_text()) for path in tmp_path.glob("videos/*/failures/*/*.json")}
    assert {failure["clip_id"]: failure["class"] for failure in failures.values()} == BROKEN
    assert all(
        failure["message"].count(failure["source"]) for failure in failures.values() if failure["class"] == "decode"
    )
    assert {clip_id for clip_id, row in rows.items() if row["state"] == "done"} == set(rows) - set(BROKEN)
    assert len(rows) == len(list(AWKWARD.glob("*/*")))
