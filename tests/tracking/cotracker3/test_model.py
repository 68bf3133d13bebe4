"""Loading weights: accepted and refused files; code in files is not executed."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aot.errors import ConfigError
from aot.tracking.cotracker3 import MemoryPlan, load_model
from tests.device_waits import DeviceWaits
from tests.tracking.cotracker3.weights import golden_weights

pytestmark = pytest.mark.usefixtures("one_thread")

VIDEO = np.random.default_rng(0).integers(0, 255, (2, 3, 32, 40), dtype=np.uint8)
QUERIES = np.array([[0, 12, 9], [1, 30, 20]], np.float32)


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", ["mapping", "file", "file under the key model"])
def test_weights_load_from_a_mapping_or_a_file(tmp_path: Path, form: str) -> None:
    weights = dict(golden_weights())
    held = {"model": weights, "steps": 7} if "key" in form else weights
    checkpoint = weights if form == "mapping" else save(tmp_path / "weights.pth", held)
    expected = load_model(golden_weights())(VIDEO, QUERIES, num_iters=1)[0]
    found = load_model(checkpoint)(VIDEO, QUERIES, num_iters=1)[0]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_loaded_weights_are_unchanged(mode: Any) -> None:
    """Merging and packing layers changes no key and no value."""
    weights = golden_weights(mode=mode)
    held = load_model(weights, mode=mode).state_dict()
    assert list(held) == list(weights)
    for key, value in weights.items():
        torch.testing.assert_close(held[key].to_dense(), value, atol=0, rtol=0)


def test_lower_precision_keeps_norms_heads_and_time_embedding_in_fp32() -> None:
    held = load_model(golden_weights(), precision="bf16").state_dict()
    exact = {key for key, value in held.items() if value.dtype == torch.float32}
    assert "time_emb" in exact
    assert "updateformer.flow_head.weight" in exact
    assert "updateformer.space_point2virtual_blocks.0.norm_context.weight" in exact
    assert {held[key].dtype for key in held if key not in exact} == {torch.bfloat16}


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in golden_weights().items() if name != key}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (without("fnet.conv1.bias"), r"offline.*scaled_offline\.pth.*Missing key.*fnet\.conv1\.bias"),
        (without("") | {"extra": torch.zeros(1)}, r"Unexpected key.*extra"),
        (dict(golden_weights(mode="online")), r"size mismatch for time_emb"),
        ({"model": {"a": torch.zeros(1)}}, r"does not hold the weights of CoTracker3 offline"),
        ({}, r"Missing key"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path: Path, weights: dict[str, Any], message: str) -> None:
    for checkpoint in (weights, save(tmp_path / "other.pth", weights)):
        with pytest.raises(ConfigError, match=f"(?s){message}") as caught:
            load_model(checkpoint)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"cannot be read as PyTorch weights: it is damaged, cut off, or contains something else"),
        (b"<!DOCTYPE html>", r"cannot be read as PyTorch weights"),
        (b"PK\x03\x04 truncated", r"cannot be read as PyTorch weights"),
    ],
)
def test_files_without_weights_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"(?s)broken\.pth {message}"):
        load_model(path)


def test_truncated_file_is_refused(tmp_path: Path) -> None:
    content = save(tmp_path / "complete.pth", dict(golden_weights())).read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"half\.pth cannot be read as PyTorch weights"):
        load_model(tmp_path / "half.pth")


def test_file_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    content = bytearray(save(tmp_path / "bit.pth", dict(golden_weights())).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "bit.pth").write_bytes(content)
    with pytest.raises(ConfigError, match=r"the checksum of its entry .* is wrong"):
        load_model(tmp_path / "bit.pth")


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.pth cannot be read as PyTorch weights: no such file or folder"):
        load_model(tmp_path / "missing.pth")


def test_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"list\.pth holds no state dict.*found: list"):
        load_model(save(tmp_path / "list.pth", [torch.zeros(1)]))


class _Trap:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_code_in_a_file_is_not_executed(tmp_path: Path, write: Any) -> None:
    trap = tmp_path / "sprung"
    write({"model": _Trap(trap)}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match=r"evil\.pth cannot be read as PyTorch weights"):
        load_model(tmp_path / "evil.pth")
    assert not trap.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "offlin"}, "mode: got 'offlin', expected one of offline, online"),
        ({"precision": "int8"}, "precision: got 'int8', expected one of fp32, bf16, fp16"),
        ({"resolution": (384, 31)}, "resolution: got (384, 31) (H, W), expected at least 32 px per side"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_model(golden_weights(), **options)


def test_window_length_can_be_set() -> None:
    model = load_model(golden_weights(window_len=24), window_len=24)
    assert model.window_len == 24
    assert model(VIDEO, QUERIES, num_iters=1)[0].shape == (2, 2, 2)


@pytest.mark.parametrize("used_by_caller", [True, False])
def test_features_are_computed_by_cudnn_without_tf32(used_by_caller: bool) -> None:
    model = load_model(golden_weights(), resolution=(32, 40))
    seen = []
    model.fnet.register_forward_pre_hook(
        lambda *_: seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.allow_tf32))
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=used_by_caller, deterministic=True):
        next(model.pyramids(iter([torch.zeros(1, 3, 32, 40)]), MemoryPlan()))
        assert torch.backends.cudnn.allow_tf32 == used_by_caller
        assert torch.backends.cudnn.deterministic
    assert seen == [(True, False)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("plan", [MemoryPlan(), MemoryPlan.wide(4), MemoryPlan(query_block=1, frame_block=2)], ids=str)
def test_nothing_in_the_refinement_waits_for_the_device(plan: MemoryPlan, reverse: bool) -> None:
    model = load_model(golden_weights(), resolution=(32, 40))
    video, queries = torch.rand(5, 1, 3, 32, 40) * 255, torch.tensor([[0, 20, 10], [3, 5, 8.0]])
    with (
        torch.inference_mode(),
        model.read_clip(lambda: iter(video), queries, resolution=(32, 40), plan=plan) as clip,
        DeviceWaits() as waits,
    ):
        clip.track(2, reverse=reverse)
    assert not waits.counts


@pytest.mark.parametrize("feature_batch", [1, 4])
def test_features_of_a_clip_do_not_wait_for_the_device(feature_batch: int) -> None:
    model = load_model(golden_weights(), resolution=(32, 40))
    video = torch.rand(6, 1, 3, 32, 40) * 255
    with torch.inference_mode(), DeviceWaits() as waits:
        assert len(list(model.pyramids(iter(video), MemoryPlan(feature_batch=feature_batch)))) == 6
    assert not waits.counts


def test_features_are_computed_for_several_frames_at_once() -> None:
    model = load_model(golden_weights(), resolution=(32, 40))
    video, sizes = torch.rand(7, 1, 3, 32, 40) * 255, []
    model.fnet.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    with torch.inference_mode():
        one_by_one = list(model.pyramids(iter(video), MemoryPlan()))
        at_once = list(model.pyramids(iter(video), MemoryPlan(feature_batch=3)))
    assert sizes == [1] * 7 + [3, 3, 1]
    for expected, found in zip(one_by_one, at_once, strict=True):
        for level, batched in zip(expected, found, strict=True):
            torch.testing.assert_close(batched, level, atol=1e-5, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_gives_same_tracks_without_synchronization() -> None:
    from aot.tracking.cotracker3 import track_offline
    from tests.synthetic import moving_square

    frames, points = moving_square(7), np.array([[0, 20, 30], [6, 60, 40]], np.float32)
    expected = track_offline(load_model(golden_weights(), resolution=(96, 128)), frames, query_points=points)
    for features in ("memory", "host", "file", "recompute"):
        model = load_model(golden_weights(), resolution=(96, 128), device="cuda")
        plan = MemoryPlan(features=features, feature_batch=3 if features == "memory" else 1)
        found = track_offline(model, frames, query_points=points, plan=plan)
        assert np.abs(found.xy - expected.xy).max() < 0.01
    queries = torch.from_numpy(points)
    video = torch.rand(7, 3, 96, 128, device="cuda") * 255
    with (
        torch.inference_mode(),
        model.read_clip(lambda: iter(video[:, None]), queries, resolution=(96, 128), plan=MemoryPlan()) as clip,
    ):
        clip.track(1)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")
        try:
            clip.track(6)
        finally:
            torch.cuda.set_sync_debug_mode("default")
