"""Detectors of the library `transformers`: small models of the real architectures against the library's own results."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aot
from aot.checkpoints.models import RECORD
from aot.decoding.pyav import PyAVDecoder
from aot.detection.base import Detector, ReleasesModel
from aot.detection.grounding_dino import GroundingDinoDetector
from aot.detection.owlv2 import Owlv2Detector
from aot.detection.pretrained import PretrainedDetector
from aot.detection.sam3 import Sam3Detector
from aot.errors import CheckpointError, ConfigError, PromptError
from aot.paths import RunPaths
from aot.pipeline import Parts, Settings, process_clip
from aot.segmentation.none import NoSegmenter
from aot.types import Clip, Prompt, Words
from tests.detection.contract import HEIGHT, TEXT, WIDTH, DetectorContract, assert_same, frame
from tests.fakes import BoxSegmenter, CentreSampler, StillTracker
from tests.made_once import made_once
from tests.synthetic import moving_square, write_video

pytest.importorskip("transformers", reason="pip install 'auto-objects-tracker[detect]'")
torch = pytest.importorskip("torch")

from tests.detection import made_models  # noqa: E402 (needs both)

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("networks")]

KINDS = {
    "grounding_dino": (GroundingDinoDetector, made_models.make_grounding_dino),
    "owlv2": (Owlv2Detector, made_models.make_owlv2),
    "sam3": (Sam3Detector, made_models.make_sam3),
}


RELATED = {
    "mm_grounding_dino": (GroundingDinoDetector, partial(made_models.make_grounding_dino, kind="MMGroundingDino")),
    "owlvit": (Owlv2Detector, partial(made_models.make_owlv2, kind="OwlViT")),
}
"""Other kinds of models that the same detectors run."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small model of every kind."""

    def make(folder: Path) -> None:
        for name, (_, write) in (KINDS | RELATED).items():
            (folder / name).mkdir(parents=True)
            write(folder / name)

    return made_once(tmp_path_factory, "detectors", make)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was attempted")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(kind: str, models: Path) -> PretrainedDetector:
    made: PretrainedDetector = KINDS[kind][0](checkpoint=models / kind, device="cpu")
    return made


class TestGroundingDinoContract(DetectorContract):
    @pytest.fixture
    def detector(self, models: Path) -> Detector:
        return GroundingDinoDetector(checkpoint=models / "grounding_dino", device="cpu")


class TestOwlv2Contract(DetectorContract):
    @pytest.fixture
    def detector(self, models: Path) -> Detector:
        return Owlv2Detector(checkpoint=models / "owlv2", device="cpu")


@pytest.mark.parametrize("masks", [True, False])
class TestSam3Contract(DetectorContract):
    @pytest.fixture
    def detector(self, models: Path, masks: bool) -> Detector:
        return Sam3Detector(checkpoint=models / "sam3", device="cpu", masks=masks)


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("grounding_dino", "bright square."), ("mm_grounding_dino", "bright square."), ("owlv2", "bright square"),
        ("owlvit", "bright square"),
    ],
)  # fmt: skip
def test_boxes_are_those_of_the_pipeline(kind: str, label: str, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import pipeline

    detector = (KINDS | RELATED)[kind][0](checkpoint=models / kind, device="cpu")
    monkeypatch.setattr("aot.detection.pretrained.inside_frame", lambda found, width, height: found)
    reference = pipeline("zero-shot-object-detection", model=str(detector.folder), device="cpu")
    expected = reference(Image.fromarray(frame()), candidate_labels=[label], threshold=0.0)
    found = detector.detect(frame(), TEXT, min_score=0.0)
    order = np.argsort(-found.scores, kind="stable")
    assert len(expected) == len(found) > 10
    np.testing.assert_allclose(found.scores[order], [each["score"] for each in expected], rtol=1e-5)
    # The pipeline truncates positions.
    corners = [[each["box"][name] for name in ("xmin", "ymin", "xmax", "ymax")] for each in expected]
    np.testing.assert_allclose(np.trunc(found.boxes[order]), corners, atol=0)


@pytest.mark.parametrize("is_every", [True, False])
def test_masks_are_those_of_the_processor(models: Path, is_every: bool) -> None:
    from transformers import Sam3Model, Sam3Processor

    folder = models / "sam3"
    model, processor = Sam3Model.from_pretrained(folder).eval(), Sam3Processor.from_pretrained(folder)
    with torch.no_grad():
        inputs = processor(images=Image.fromarray(frame()), text=TEXT, return_tensors="pt")
        outputs = model(**inputs)
    (every,) = processor.post_process_instance_segmentation(outputs, threshold=0.0)
    min_score = 0.0 if is_every else float(every["scores"].median()) + 1e-6
    (expected,) = processor.post_process_instance_segmentation(
        outputs, threshold=min_score, target_sizes=inputs["original_sizes"].tolist()
    )
    found = Sam3Detector(checkpoint=folder, device="cpu").detect(frame(), TEXT, min_score=min_score)
    assert len(found) == (12 if is_every else 6)
    assert torch.equal(torch.from_numpy(found.scores), expected["scores"])
    assert found.masks is not None
    assert torch.equal(torch.from_numpy(found.masks), expected["masks"].bool())
    np.testing.assert_array_equal(found.boxes, np.clip(expected["boxes"].numpy(), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT]))


def test_a_model_for_videos_has_its_detector_used(models: Path, tmp_path: Path) -> None:
    """The files of facebook/sam3: the detector and a tracker in one model."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "video"
    shutil.copytree(models / "sam3", folder)
    config = {"model_type": "sam3_video", "detector_config": json.loads((folder / "config.json").read_text())}
    (folder / "config.json").write_text(json.dumps(config))
    # Version 5.0 of the library writes the prefix by itself.
    tensors = {
        f"detector_model.{name.removeprefix('detector_model.')}": value
        for name, value in load_file(folder / "model.safetensors").items()
    }
    tensors["tracker_model.other"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    found = Sam3Detector(checkpoint=folder, device="cpu").detect(frame(), TEXT, min_score=0.0)
    assert_same(found, Sam3Detector(checkpoint=models / "sam3", device="cpu").detect(frame(), TEXT, min_score=0.0))


def test_a_text_is_read_in_lower_case_with_one_full_stop(models: Path) -> None:
    detector = GroundingDinoDetector(checkpoint=models / "grounding_dino", device="cpu")
    expected = detector.detect(frame(), "bright square", min_score=0.0)
    assert_same(detector.detect(frame(), " Bright SQUARE. ", min_score=0.0), expected)


def test_other_words_have_other_scores(detector: PretrainedDetector) -> None:
    one, other = (detector.detect(frame(), text, min_score=0.0).scores for text in ("bright square", "red mug"))
    assert not np.array_equal(one, other)


def test_boxes_outside_the_frame_do_not_count_as_the_best(models: Path) -> None:
    """OWLv2 pads the frame to a square, and the synthetic network has its best box in the padding."""
    found = Owlv2Detector(checkpoint=models / "owlv2", device="cpu").detect(frame(), TEXT, min_score=0.0)
    assert 0 < len(found) < 36
    assert found.best_score == found.scores.max()


def test_nothing_is_requested_from_a_network(detector: PretrainedDetector, no_network: None) -> None:
    assert len(detector.detect(frame(), TEXT, min_score=0.0))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precision_is_recorded_and_changes_little(kind: str, models: Path, precision: str) -> None:
    detector = KINDS[kind][0](checkpoint=models / kind, device="cpu", precision=precision)
    exact = KINDS[kind][0](checkpoint=models / kind, device="cpu").detect(frame(), TEXT, min_score=0.0)
    assert detector.precision_name == precision
    found = detector.detect(frame(), TEXT, min_score=0.0)
    assert found.best_score == pytest.approx(exact.best_score, abs=0.05)
    assert not np.array_equal(found.scores, exact.scores)


def test_a_released_model_is_loaded_again(detector: PretrainedDetector) -> None:
    before = detector.detect(frame(), TEXT, min_score=0.0)
    assert isinstance(detector, ReleasesModel)
    detector.release()
    assert detector._loaded is None
    assert_same(detector.detect(frame(), TEXT, min_score=0.0), before)


def test_weights_are_recorded(detector: PretrainedDetector) -> None:
    (weights,) = detector.weights
    assert (weights.file, weights.checkpoint, weights.licence) == ("model.safetensors", None, None)
    assert detector.model_name == detector.folder.name
    assert detector.device_name == "cpu"


def test_a_downloaded_model_is_known_by_its_record(
    kind: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AOT_CHECKPOINTS", str(tmp_path))
    folder = tmp_path / "owner" / "model"
    shutil.copytree(models / kind, folder)
    with pytest.raises(CheckpointError, match=r"no model at .*owner/model; download it with .* download owner/model"):
        KINDS[kind][0](model="owner/model")
    (weights,) = KINDS[kind][0](checkpoint=folder).weights
    record = {
        "repository": "owner/model",
        "revision": "ab12",
        "licence": "mit",
        "sha256": {weights.file: weights.sha256},
    }
    (folder / RECORD).write_text(json.dumps(record))
    detector = KINDS[kind][0](model="owner/model", device="cpu")
    assert detector.model_name == "owner/model"
    (weights,) = detector.weights
    assert (weights.checkpoint, weights.licence) == ("owner/model", "mit")


def test_the_download_command_is_named_where_the_model_is_missing(kind: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        KINDS[kind][0]()
    assert f"download it with `python -m aot.checkpoints download {kind}`" in str(caught.value)


def test_a_model_of_another_kind_is_refused(models: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        GroundingDinoDetector(checkpoint=models / "owlv2")
    assert str(caught.value).endswith(
        "a model of kind 'owlv2', expected grounding-dino or mm-grounding-dino; use detector=owlv2"
    )
    with pytest.raises(CheckpointError, match=r"detector\.model=grounding_dino: expected OWNER/NAME"):
        GroundingDinoDetector(model="grounding_dino")


def test_without_the_library_the_extra_is_named(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aot.detection.pretrained.find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"detector=owlv2 needs the library transformers: pip install 'auto-objects-tr"
    ):
        Owlv2Detector(checkpoint=models / "owlv2")


def test_too_long_a_text_is_refused(detector: PretrainedDetector) -> None:
    with pytest.raises(
        PromptError, match=r"has \d+ tokens, but .* reads at most \d+; describe the object in fewer words"
    ):
        detector.detect(frame(), "abcdefghijklmnopqrstuvwxyz " * 3, min_score=0.0)


@pytest.fixture
def damaged(kind: str, models: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(models / kind, tmp_path / "model")
    return tmp_path / "model"


def test_weights_that_lack_a_tensor_are_refused(kind: str, damaged: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = damaged / "model.safetensors"
    tensors = load_file(path)
    del tensors[sorted(name for name in tensors if "vision" in name or "encoder" in name)[0]]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 are missing or of another shape, such as .*; download the model again"
    ):
        KINDS[kind][0](checkpoint=damaged, device="cpu").detect(frame(), TEXT, min_score=0.0)


def test_damaged_files_are_reported(kind: str, damaged: Path) -> None:
    path = damaged / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(
        CheckpointError, match=r"model cannot be loaded as .*; check it with `python -m aot.checkpoints ver"
    ):
        KINDS[kind][0](checkpoint=damaged, device="cpu").detect(frame(), TEXT, min_score=0.0)


def test_a_clip_is_processed_with_a_network_that_is_recorded(
    detector: PretrainedDetector, kind: str, tmp_path: Path, no_network: None
) -> None:
    """From words to tracks; the synthetic weights find something somewhere."""
    video = write_video(tmp_path / "a.mp4", moving_square(6))
    clip = Clip("a", video, (Prompt(1, 0, words=Words(TEXT, (0,), count=2, min_score=0.0)),))
    segmenter = NoSegmenter() if kind == "sam3" else BoxSegmenter()
    parts = Parts(PyAVDecoder(), segmenter, CentreSampler(), StillTracker(), detector)
    paths = RunPaths(tmp_path / "run").clip("a")
    process_clip(clip, parts, Settings(1, 1, {"config_yaml": "", "config_hash": "", "versions": "{}"}), paths)
    result = aot.load(paths.result)
    assert result.object_id.tolist() == [1, 2]
    (prompt,), *_ = result.object_prompts
    assert {"text", "score", "model", "mask" if kind == "sam3" else "box"} <= set(prompt)
    (weights,) = result.provenance["weights"]
    assert (weights["part"], weights["file"]) == ("detector", "model.safetensors")
    assert result.provenance["precision"] == {"detector": "fp32"}
    assert result.provenance["words"][0]["model"] == kind
    assert len(result.query) == 2
