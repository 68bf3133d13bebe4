"""Locating weights, identifying them by their content, and what parts declare."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from aot.checkpoints import (
    CHECKPOINTS,
    Weights,
    device_name_of,
    identify,
    precisions_of,
    require_checkpoint,
    weights_folder,
    weights_of,
)
from aot.errors import CheckpointError
from tests.checkpoints.server import CONTENT, FILE, NAME, Server


def test_missing_weights_name_the_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        require_checkpoint(NAME, None, option="segmenter.checkpoint", without="segmenter=grabcut")
    message = str(caught.value)
    assert f"python -m aot.checkpoints download {NAME}" in message
    assert "segmenter=grabcut" in message
    assert str(weights_folder() / FILE) in message
    own = tmp_path / "own.pt"
    own.touch()
    assert require_checkpoint(NAME, own, option="segmenter.checkpoint", without="") == own


def test_weights_are_identified_by_content(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "renamed.pt"
    path.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert identify(path) == Weights("renamed.pt", digest, checkpoint=NAME, licence="Apache-2.0")
    with monkeypatch.context() as patch:
        patch.setattr("aot.checkpoints.weights.sha256_of", None)
        assert identify(path).sha256 == digest, "the file is read once"
    path.write_bytes(b"my own")
    assert identify(path) == Weights("renamed.pt", hashlib.sha256(b"my own").hexdigest(), checkpoint=None, licence=None)
    with pytest.raises(CheckpointError, match=r"absent\.pt cannot be read"):
        identify(tmp_path / "absent.pt")


def test_table_is_well_formed() -> None:
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.sha256 is None or len(bytes.fromhex(checkpoint.sha256)) == 32
        assert checkpoint.url.startswith("https://")


def test_parts_declare_weights_and_device_independently() -> None:
    own = Weights("own.pth", "ab12", checkpoint=None, licence=None)

    class WithWeights:
        weights = (own,)

    class OnGpu:
        device_name = "cuda:0 NVIDIA H100"

    class InHalf:
        precision_name = "bf16"

    assert precisions_of({"tracker": InHalf(), "segmenter": OnGpu()}) == {"tracker": "bf16"}
    assert (weights_of(WithWeights()), device_name_of(WithWeights())) == ((own,), "cpu")
    assert (weights_of(OnGpu()), device_name_of(OnGpu())) == ((), "cuda:0 NVIDIA H100")
    assert (weights_of(object()), device_name_of(object())) == ((), "cpu")
