"""Complete runs of SAM 2 with random weights: from the command line to the result file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aot
from aot.checkpoints import identify
from aot.errors import ConfigError
from aot.run import main
from aot.segmentation.sam2 import Sam2Segmenter
from aot.types import BoolArray, Prompt
from tests.segmentation.sam2_models import stock_propagation, stock_video_predictor
from tests.shared_data import SHARED_DATA, needs_shared_data
from tests.synthetic import moving_square, write_video

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = ["segmenter=sam2", "segmenter.size=tiny", "segmenter.image_size=128", "segmenter.device=cpu"]
REST = ["tracker=lucas_kanade", "query_points.num_points=20", "launcher=inline", "output.overlay=false"]
VIDEO = ["dataset=video", "dataset.path=clip.mp4", "dataset.box=[8,20,28,40]"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with one video."""
    write_video(tmp_path / "clip.mp4", moving_square(8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_folder(folder: Path, dataset: str, segmenter: str = "sam2") -> Path:
    (path,) = (folder / "outputs" / dataset).glob(f"{segmenter}-*")
    return path


def test_sam2_is_the_default_and_missing_weights_are_reported_before_anything_starts(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints/sam2\.1_hiera_large\.pt"):
        Sam2Segmenter()
    assert main([*VIDEO, *REST, "dataset.frame=-1"]) == 2
    message = capsys.readouterr().err
    assert "python -m aot.checkpoints download sam2.1_hiera_large" in message
    assert "segmenter=grabcut" in message
    assert "dataset.frame" in message, "all errors are reported together"
    assert "Nothing was started" in message
    assert not (folder / "outputs").exists()


@pytest.mark.slow
def test_a_run_writes_masks_provenance_and_pictures(
    folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = f"segmenter.checkpoint='{weights}'"
    assert main([*VIDEO, *TINY, *REST, chosen, "output.pictures=true"]) == 0
    path = run_folder(folder, "video")
    result = aot.load(path / "clips" / "clip.h5")
    assert result.mask_row.tolist() == list(range(8))
    assert ((result.mask_score > 0) & (result.mask_score < 1)).all()
    assert result.attributes["device"] == "cpu"
    assert json.loads(result.attributes["precision"]) == {"segmenter": "fp32"}, "auto, on a CPU"
    assert json.loads(result.attributes["weights"]) == [
        {
            "part": "segmenter", "file": "random.pt", "sha256": identify(weights).sha256, "checkpoint": None,
            "licence": None,
        }
    ]  # fmt: skip
    assert "pictures/*/*.png" in capsys.readouterr().out
    pictures = path / "pictures" / "clip"
    assert sorted(file.name for file in pictures.iterdir()) == ["frame_000000.png", "frame_000000_object_1.png"]
    assert result.masks is not None
    drawn = np.asarray(Image.open(pictures / "frame_000000_object_1.png"))
    assert np.array_equal(drawn > 0, result.masks[0, 0])

    assert main([*VIDEO, "segmenter=grabcut", *REST]) == 0, "Hydra composes as before after SAM 2 was built"
    assert (
        json.loads((run_folder(folder, "video", "grabcut") / "run.json").read_text())["choices"]["dataset"] == "video"
    )


@pytest.mark.slow
def test_masks_on_prompt_frames_only(folder: Path, weights: Path) -> None:
    assert main([*VIDEO, *TINY, *REST, f"segmenter.checkpoint='{weights}'", "segmenter.propagate=false"]) == 0
    assert aot.load(run_folder(folder, "video") / "clips" / "clip.h5").mask_row.tolist() == [0]


@pytest.mark.slow
def test_damaged_weights_fail_the_clip_and_name_the_file(folder: Path, weights: Path) -> None:
    (folder / "cut.pt").write_bytes(weights.read_bytes()[:1000])
    assert main([*VIDEO, *TINY, *REST, "segmenter.checkpoint=cut.pt"]) == 1
    failure = json.loads((run_folder(folder, "video") / "failures" / "clip.json").read_text())
    assert (failure["class"], failure["stage"]) == ("checkpoint", "segment")
    assert "cut.pt cannot be read as PyTorch weights" in failure["message"]


def square_masks(t: int) -> dict[int, BoolArray]:
    """The moving square, and a part of the background."""
    square, ground = np.zeros((64, 96), np.bool_), np.zeros((64, 96), np.bool_)
    square[20:40, 8 + 2 * t : 28 + 2 * t] = True
    ground[45:60, 50:80] = True
    return {1: square, 2: ground}


def save_indices(path: Path, masks: dict[int, BoolArray]) -> None:
    """Write a palette image whose indices are object ids."""
    values = np.zeros((64, 96), np.uint8)
    for object_id, mask in masks.items():
        values[mask] = object_id
    image = Image.fromarray(values).convert("P")
    image.putdata(values.ravel().tolist())
    image.save(path)


@pytest.mark.slow
def test_a_davis_tree_gets_the_masks_of_the_official_predictor(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rgb = moving_square(5)
    images, annotations, splits = (
        tmp_path / "DAVIS" / name for name in ("JPEGImages/480p/clip", "Annotations/480p/clip", "ImageSets/2017")
    )
    for made in (images, annotations, splits):
        made.mkdir(parents=True)
    for t, image in enumerate(rgb):
        Image.fromarray(image).save(
            images / f"{t:05d}.jpg", format="PNG"
        )  # lossless, as for the official predictor below
        save_indices(annotations / f"{t:05d}.png", square_masks(t))
    (splits / "val.txt").write_text("clip\n")

    chosen = ["dataset=davis", "dataset.root=DAVIS", f"segmenter.checkpoint='{weights}'"]
    assert main([*chosen, *TINY, *REST]) == 0
    result = aot.load(run_folder(tmp_path, "davis") / "clips" / "clip.h5")
    prompts = [Prompt(object_id, 0, mask=mask) for object_id, mask in square_masks(0).items()]
    logits, scores = stock_propagation(stock_video_predictor(weights), tmp_path / "frames", rgb, prompts)
    assert result.masks is not None
    assert result.masks[0, 0].any()
    assert result.masks[0, 1].any()
    for (frame, object_id), expected in logits.items():
        assert np.array_equal(result.masks[frame, object_id - 1], expected.numpy() > 0)
        assert result.mask_score[frame, object_id - 1] == pytest.approx(scores[frame, object_id], abs=1e-6)


@needs_shared_data
@pytest.mark.long
def test_real_davis_clips_run_from_end_to_end(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick counterpart: `test_a_davis_tree_gets_the_masks_of_the_official_predictor`."""
    monkeypatch.chdir(tmp_path)
    chosen = ["dataset=davis", f"dataset.root='{SHARED_DATA / 'DAVIS'}'", f"segmenter.checkpoint='{weights}'"]
    assert main([*chosen, *TINY, *REST, "output.overlay=true", "output.pictures=true"]) == 0
    path = run_folder(tmp_path, "davis")
    split = (SHARED_DATA / "DAVIS/ImageSets/2017/val.txt").read_text().split()
    for name in split:
        result = aot.load(path / "clips" / f"{name}.h5")
        truth = np.asarray(Image.open(SHARED_DATA / f"DAVIS/Annotations/480p/{name}/00000.png")) > 0
        assert result.masks is not None
        overlap = (result.masks[0].any(axis=0) & truth).sum() / (result.masks[0].any(axis=0) | truth).sum()
        assert overlap > 0.9, "a mask prompt is returned at the resolution of the model"
        assert (path / "overlays" / f"{name}.mp4").is_file()
        assert (path / "pictures" / name / "frame_000000_object_1.png").is_file()


@pytest.mark.slow
def test_a_sweep_in_a_separate_process(folder: Path, weights: Path) -> None:
    """The second run is composed after SAM 2 was built for the first one."""
    chosen = ["-m", "frame_interval=4,8", *VIDEO, *TINY, *REST, f"segmenter.checkpoint='{weights}'"]
    done = subprocess.run([sys.executable, "-m", "aot.run", *chosen], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "outputs").rglob("clip.h5"))) == 2
