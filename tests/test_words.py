"""Prompts by words, from the manifest to tracks, on the demo with a detector that knows its colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import aot
from aot.datasets.demo.dataset import Demo
from aot.paths import RunPaths
from aot.report.clip import is_reported
from tests.command_line import EMBEDDED, only_run, run_in

MANIFEST = """\
clips:
  spin: {objects: [{id: 1, text: red stone, frames: [0, 8]}]}
  pair: {objects: [{id: 1, text: pink leaves, count: 2, min_score: 0.6}]}   # there is only one
"""


def write_option(folder: Path) -> Path:
    """A folder with the option detector=colours."""
    path = folder / "options" / "detector" / "colours.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("# By colour.\n_target_: tests.fakes.ColourDetector\nmin_score: 0.3\nmax_overlap: 0.5\n")
    return folder / "options"


def command(demo_root: Path, *more: str) -> list[str]:
    options = [f"dataset.root={demo_root}", "dataset.prompts=prompts.yaml", "dataset.include=[spin,pair]"]
    options += ["frame_interval=4", "query_points.num_points=20", "output.overlay=false"]
    return ["dataset=videos", *EMBEDDED, *options, *more]


@pytest.mark.slow
def test_words_become_boxes_masks_and_tracks(
    demo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.yaml").write_text(MANIFEST)
    with_detector = command(demo_root, "--config-dir", str(write_option(tmp_path)), "detector=colours")
    assert run_in(tmp_path, *with_detector) == 1  # one object of a clip is not there
    assert "1 done, 1 partial" in capsys.readouterr().out
    folder = only_run(tmp_path / "outputs")
    for clip_id in ("spin", "pair"):
        result = aot.load(folder / "clips" / f"{clip_id}.h5")
        truth = Demo(demo_root).ground_truth(clip_id)
        assert truth is not None
        assert result.masks is not None
        expected = np.stack([truth.mask(frame)[1] for frame in result.index.tolist()])  # type: ignore[index]
        overlap = (result.masks[:, 0] & expected).sum() / (result.masks[:, 0] | expected).sum()
        assert overlap > 0.7, clip_id
        assert np.bincount(result.track_object_id).tolist() == [0, 20]
        ((prompt,), *_) = result.object_prompts
        assert (prompt["frame"], prompt["model"]) == (0, "colours")
        assert prompt["score"] > 0.6
        assert is_reported(RunPaths(folder).clip(clip_id))
    assert result.object_error[1].startswith(
        'object 2: "pink leaves" found 1 time on frame 0, expected 2 with scores of at least 0.6;'
    )
    # The same command finds its results again, and another limit of the detector is another run.
    assert run_in(tmp_path, *with_detector) == 1
    assert "2 finished before" in capsys.readouterr().out
    assert run_in(tmp_path, *with_detector, "detector.min_score=0.4", "dry_run=true") == 0
    assert "2 to run" in capsys.readouterr().out


def test_words_without_a_detector_start_nothing(
    demo_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.yaml").write_text(MANIFEST)
    assert run_in(tmp_path, *command(demo_root)) == 2
    error = capsys.readouterr().err
    assert (
        "clip 'pair', object 1: \"pink leaves\" is to be found by a detector, but there is none (2 clips with text); "
        "add detector=grounding_dino"
    ) in error
    assert not (tmp_path / "outputs").exists()
