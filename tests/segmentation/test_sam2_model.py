"""Construction of SAM 2: the official configuration, checked weights, and an unchanged state of Hydra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_module
from omegaconf import OmegaConf

from aot.errors import ConfigError
from aot.segmentation.sam2.model import CONFIGS, FILL_HOLE_AREA, build_model, import_sam2, load_weights, model_config

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("size", CONFIGS)
@pytest.mark.parametrize("image_size", [128, 1024])
def test_the_configuration_equals_that_of_the_official_builder(
    size: str, image_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder = import_sam2("sam2.build_sam")

    class Built(Exception):
        pass

    def stop(config: Any, **_: Any) -> None:
        raise Built(OmegaConf.to_container(config))

    monkeypatch.setattr(builder, "instantiate", stop)
    with initialize_config_module("sam2", version_base="1.2"), pytest.raises(Built) as caught:
        builder.build_sam2_video_predictor(
            CONFIGS[size], device="cpu", hydra_overrides_extra=[f"++model.image_size={image_size}"]
        )
    expected, own = caught.value.args[0], OmegaConf.to_container(model_config(size, image_size))
    assert isinstance(own, dict)
    assert own.pop("_target_").endswith(".StreamingPredictor")
    assert expected.pop("_target_") == "sam2.sam2_video_predictor.SAM2VideoPredictor"
    assert expected.pop("fill_hole_area") == FILL_HOLE_AREA
    # Without the CUDA extension the official predictor does not fill holes either, and warns.
    assert own.pop("fill_hole_area") == 0
    assert own == expected


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True])
def test_weights_are_read_at_the_top_level_or_under_their_key(bare: bool, weights: Path, tmp_path: Path) -> None:
    held = torch.load(weights, weights_only=True)["model"]
    torch.save(held if bare else {"model": held}, tmp_path / "held.pt")
    loaded = build_model("tiny", tmp_path / "held.pt", 128).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in held.items())


@pytest.fixture(scope="module")
def model(weights: Path) -> Any:
    return build_model("tiny", weights, 128)


class Danger:
    """Executes code when it is unpickled without checks."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code from a checkpoint ran",)


def write_damaged(path: Path, how: str, weights: Path) -> None:
    held = torch.load(weights, weights_only=True)["model"]
    first, second = list(held)[:2]
    if how == "cut short":
        path.write_bytes(weights.read_bytes()[:1_000_000])
    elif how == "one bit":
        changed_bytes = bytearray(weights.read_bytes())
        changed_bytes[len(changed_bytes) // 2] ^= 1
        path.write_bytes(changed_bytes)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a page":
        path.write_bytes(b"<html>404</html>")
    elif how == "code":
        torch.save({"model": held, "more": Danger()}, path)
    elif how == "a list":
        torch.save([1, 2], path)
    elif how == "something else":
        torch.save({"epoch": 3, "optimizer": {}}, path)
    else:
        changed = dict(held)
        if how == "key missing":
            del changed[first]
        elif how == "key too much":
            changed["extra.weight"] = torch.zeros(1)
        else:
            changed[second] = torch.zeros(3, 5)
        torch.save({"model": changed}, path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("cut short", "cannot be read as PyTorch weights"),
        (
            "one bit",
            r"cannot be read as PyTorch weights: it is damaged, the checksum of its entry .*/data/\d+ is wrong",
        ),
        ("empty", "cannot be read as PyTorch weights"),
        ("a page", "cannot be read as PyTorch weights"),
        ("code", "cannot be read as PyTorch weights"),
        ("a list", r"holds no state dict.*found: list"),
        ("something else", r"holds no state dict.*found: epoch, optimizer"),
        ("key missing", r"does not fit .*sam2\.1_hiera_t\.yaml: 1 missing: maskmem_tpos_enc"),
        ("key too much", r"does not fit .*: 1 unexpected: extra\.weight"),
        ("shape", r"does not fit .*: 1 of another shape: no_mem_embed is \(3, 5\), not \(1, 1, 256\)"),
    ],
)
def test_unusable_weights_are_reported(
    how: str, message: str, model: Any, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "damaged.pt"
    write_damaged(path, how, weights)
    with pytest.raises(ConfigError, match=message) as caught:
        load_weights(model, path, CONFIGS["tiny"])
    assert str(path) in str(caught.value)
    assert "code from a checkpoint ran" not in capfd.readouterr().out


@pytest.mark.slow
def test_weights_of_another_size_are_reported(weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not fit .*hiera_s\.yaml: .* missing: .*image_encoder\.trunk"):
        build_model("small", weights, 128)


@pytest.mark.slow
def test_imports_change_no_state_of_hydra_and_load_no_models() -> None:
    program = """
import sys
import aot.run, aot.segmentation.sam2
from hydra.core.global_hydra import GlobalHydra
from hydra.core.singleton import Singleton
assert not {"torch", "sam2"} & set(sys.modules)
from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.segmentation.sam2.model import import_sam2
def state():
    GlobalHydra.instance()  # created on first use
    return {kind: dict(vars(instance)) for kind, instance in Singleton.get_state()["instances"].items()}
before = compose_jobs(parse_command(["dataset=demo", "segmenter=sam2"]))
found = state()
import_sam2("aot.segmentation.sam2.streaming")
assert "sam2.sam2_video_predictor" in sys.modules
assert state() == found
assert compose_jobs(parse_command(["dataset=demo", "segmenter=sam2"])) == before
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
