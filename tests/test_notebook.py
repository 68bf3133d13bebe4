"""`aot.track`: one video without a run folder."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import aot
from aot import notebook
from aot.errors import ConfigError, DatasetError, DecodeError, OutOfMemory, PromptError
from aot.run import main
from aot.tracking.lucas_kanade import LucasKanadeTracker
from aot.types import Tracks
from tests.command_line import EMBEDDED_MODELS, child_environment
from tests.synthetic import moving_square, write_video

BOX = (8, 20, 28, 40)
NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"
MODELS: dict[str, Any] = {"segmenter": "grabcut", "tracker": "lucas_kanade"}


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook, "_kept", {})
    return write_video(tmp_path / "my clip, 1=a.mp4", moving_square(8))


def test_result_equals_that_of_the_command(video: Path) -> None:
    arguments = ["dataset=video", f"dataset.path='{video}'", f"dataset.box={list(BOX)}", "output.overlay=false"]
    assert main([*arguments, *EMBEDDED_MODELS, "launcher=inline"]) == 0
    (file,) = Path("outputs").rglob("*.h5")
    expected, found = aot.load(file), aot.track(video, box=BOX, **MODELS)
    assert np.array_equal(found.tracks.xy, expected.tracks.xy)
    assert np.array_equal(np.asarray(found.masks), np.asarray(expected.masks))
    assert found.attributes["config_hash"] == expected.attributes["config_hash"]
    assert sorted(path.name for path in Path.cwd().iterdir()) == [video.name, "outputs"]


def test_masks_of_a_temporary_result_stay_readable_until_the_last_of_its_results_is_gone(video: Path) -> None:
    part = aot.track(video, box=BOX, **MODELS).select(frames=slice(2, 5))
    gc.collect()
    folder = part.masks._keeps.path  # type: ignore[union-attr]
    is_found = bool(np.asarray(part.masks).any())  # an assertion would hold the masks until the end of the test
    del part
    gc.collect()
    assert (is_found, folder.exists()) == (True, False)


def test_an_object_is_found_by_words(video: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    options = tmp_path_factory.mktemp("options")
    (options / "detector").mkdir()
    (options / "detector" / "square.yaml").write_text("# Squares.\n_target_: tests.fakes.SquareDetector\n")
    folder = ["--config-dir", str(options)]
    result = aot.track(video, text="square", frame=3, detector="square", **MODELS, overrides=folder)
    assert result.object_prompts[0][0]["box"] == pytest.approx([14, 20, 34, 40], abs=1)
    assert result.provenance["words"][0]["found"][0]["frame"] == 3
    assert (result.object("square").query[:, 0] == 3).all()
    with pytest.raises(PromptError, match=r'"hat" not found on frame 0: the best score is 0\.100'):
        aot.track(video, text="hat", detector="square", **MODELS, overrides=folder)


def test_out_is_written_and_replaced(video: Path) -> None:
    for frame in (0, 3):
        result = aot.track(video, points=[(10 + 2 * frame, 30)], frame=frame, out="mug.h5", **MODELS)
        assert aot.load("mug.h5").object_prompts[0][0]["frame"] == frame == result.object_prompts[0][0]["frame"]
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["mug.h5", video.name]


@pytest.mark.parametrize("is_file", [False, True])
def test_mask_as_array_or_file(video: Path, is_file: bool) -> None:
    mask = np.zeros((64, 96), np.bool_)
    mask[20:40, 8:28] = True
    cv2.imwrite("mask.png", mask.astype(np.uint8))
    result = aot.track(video, mask="mask.png" if is_file else mask, segmenter="none", tracker="lucas_kanade")
    assert np.array_equal(np.asarray(result.masks)[0, 0], mask)
    recorded = result.object_prompts[0][0]["mask"]
    assert recorded == str(Path("mask.png").absolute()) if is_file else set(recorded) == {"size", "counts"}


def test_models_are_kept_for_calls_with_the_same_settings(video: Path) -> None:
    aot.track(video, box=BOX, **MODELS)
    first = notebook._kept["tracker"][1]
    aot.track(video, box=BOX, **MODELS, overrides=["query_points.num_points=5"])
    assert notebook._kept["tracker"][1] is first
    aot.track(video, box=BOX, **MODELS, overrides=["tracker.window_px=11"])
    assert notebook._kept["tracker"][1].window_px == 11


def test_out_of_memory_climbs_the_ladder(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    track = LucasKanadeTracker.track

    def small(self: LucasKanadeTracker, frames: Any, queries: Any, *, lean: bool = False, most: int = 4) -> Tracks:
        if len(frames.index) > most:
            raise OutOfMemory("no more")
        return track(self, frames, queries, lean=lean)

    monkeypatch.setattr(LucasKanadeTracker, "track", small)
    result = aot.track(video, box=BOX, **MODELS)
    assert result.index.tolist() == [0, 2, 4, 6]
    assert [attempt["class"] for attempt in result.provenance["attempts"]] == ["oom", "oom", None]
    sampled = aot.track(video, box=BOX, **MODELS, overrides=["sample_fps=5"])
    assert sampled.index.tolist() == [0, 2, 4, 6]
    monkeypatch.setattr(LucasKanadeTracker, "track", partialmethod(small, most=2))
    thinned = aot.track(video, box=BOX, **MODELS, overrides=["sample_fps=5"])
    assert thinned.index.tolist() == [0, 4], "every second of the frames chosen by time"
    with pytest.raises(OutOfMemory, match="no more"):
        aot.track(video, box=BOX, **MODELS, overrides=["ladder.max_frame_interval=1"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "^box, points and mask are missing; .* for example 'box="),
        ({"text": "mug"}, '"mug" cannot be found with detector=none; add detector=grounding_dino'),
        ({"text": "mug", "box": BOX}, "^text: expected without box, points and mask"),
        ({"points": (18, 30)}, r"^points: expected a list of lists, got \[18,30\]"),
        ({"box": BOX, "segmenter": "grabcat"}, "grabcut"),
        ({"box": (5, 5, 1, 1)}, "box"),
        ({"box": BOX, "overrides": ["frame_intervall=2"]}, "frame_interval"),
        ({"box": BOX, "overrides": "frame_interval=0"}, "frame_interval: expected a value greater than or equal to 1"),
        ({"mask": np.zeros((3, 3, 3), np.bool_)}, r"mask: got \(3, 3, 3\) bool, expected \(height, width\) bool"),
        ({"box": BOX, "out": "nowhere/mug.h5"}, "out=nowhere/mug.h5: the folder nowhere does not exist"),
    ],
)
def test_wrong_arguments_are_named(video: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        aot.track(video, **MODELS | arguments)
    assert [path.name for path in Path.cwd().iterdir()] == [video.name]


def test_missing_files_are_named_as_arguments(video: Path) -> None:
    with pytest.raises(DatasetError, match=r"^video=none\.mp4 does not exist"):
        aot.track("none.mp4", box=BOX, **MODELS)
    with pytest.raises(DatasetError, match=r"^mask=none\.png does not exist"):
        aot.track(video, mask="none.png", **MODELS)


def test_result_is_shown_in_a_few_lines(video: Path) -> None:
    """A notebook shows the value of a cell's last line."""
    shown = repr(aot.track(video, box=BOX, **MODELS))
    assert "index=(8,) int64" in shown
    assert "config_yaml" not in shown
    assert len(shown) < 1000


def test_broken_video_leaves_nothing(video: Path) -> None:
    Path("broken.mp4").write_bytes(b"no video")
    with pytest.raises(DecodeError, match=r"broken\.mp4"):
        aot.track("broken.mp4", box=BOX, out="mug.h5", **MODELS)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["broken.mp4", video.name]


def test_parsed_provenance_object_and_tensors(video: Path) -> None:
    result = aot.track(video, box=BOX, **MODELS)
    assert result.provenance["versions"]["python"] == sys.version.split()[0]
    assert [type(result.provenance[name]) for name in ("checks", "seconds", "attempts")] == [dict, dict, list]
    assert result.provenance["clip_id"] == "my clip, 1=a"
    assert result.object(1).object_id.tolist() == [1]
    with pytest.raises(KeyError):
        result.object("mug")
    assert result.to_torch()["xy"].shape == result.tracks.xy.shape


@pytest.mark.slow
def test_example_notebook_runs(video: Path) -> None:
    """Its code cells, in order, in one process."""
    video.rename("mug.mp4")
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    code = "\n".join("".join(cell["source"]) for cell in cells)
    process = subprocess.run(
        [sys.executable, "-c", code], env=child_environment(), capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert "mug.mp4" in code
    assert Path("mug.h5").is_file()
