"""SAM 2 with random weights: the masks of the official predictors, from a stream, with a state of bounded size."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aot.errors import OutOfMemory
from aot.segmentation.sam2 import Sam2Segmenter
from aot.segmentation.sam2.objects import MemoryBank, ObjectGroup
from aot.system.devices import describe_device, tf32
from aot.types import Prompt, UInt8Array
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import (
    remember_features,
    save_random_weights,
    stock_image_predictor,
    stock_propagation,
    stock_video_predictor,
    stock_warnings,
)
from tests.segmentation.sam2_scenarios import (
    BOX,
    CRASHES_STOCK,
    LATE_BOX,
    QUICK,
    SCENARIOS,
    Recorded,
    assert_same,
    raising,
    repaired,
    square,
    square_mask,
)
from tests.synthetic import moving_square

SIZE = 128


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def stock(weights: Path) -> Any:
    predictor = stock_video_predictor(weights)
    remember_features(predictor)
    return predictor


@pytest.fixture(scope="module")
def stock_images(weights: Path) -> Any:
    predictor = stock_image_predictor(weights)
    remember_features(predictor.model)
    return predictor


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SCENARIOS]
)
def test_masks_equal_those_of_the_official_video_predictor(
    name: str, ours: Sam2Segmenter, weights: Path, stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_frames, prompts = SCENARIOS[name]
    rgb = moving_square(num_frames)
    if name in CRASHES_STOCK:
        with pytest.raises(RuntimeError, match="dtype"):
            stock_propagation(stock, tmp_path / "crashing", rgb, prompts)
        stock = repaired(weights)
    assert_same(Recorded(ours, rgb, prompts, monkeypatch), *stock_propagation(stock, tmp_path / "frames", rgb, prompts))


@pytest.mark.slow
@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.long), 2])
def test_masks_equal_those_of_the_official_video_predictor_beyond_all_windows(
    stride: int, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a memory of two frames and five pointers, which a short clip exceeds in both passes.

    Quick counterparts of stride 1: stride 2, and `test_exactly_the_rows_that_are_still_read_are_kept`.
    """
    ours = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=SIZE)
    stock = repaired(weights)
    for model in (ours._loaded(), stock):
        model.num_maskmem, model.max_obj_ptrs_in_encoder, model.memory_temporal_stride_for_eval = 4, 5, stride
    rgb = moving_square(14)
    prompts = [Prompt(1, 6, box=square(6)), Prompt(2, 8, points=((70, 50),), labels=(1,))]
    expected = stock_propagation(stock, tmp_path / "frames", rgb, prompts)
    assert_same(Recorded(ours, rgb, prompts, monkeypatch), *expected)


@pytest.mark.long
def test_masks_equal_those_of_the_official_video_predictor_in_a_long_clip(
    ours: Sam2Segmenter, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick counterpart: `test_masks_equal_those_of_the_official_video_predictor_beyond_all_windows`."""
    rgb = moving_square(42)
    prompts = [
        Prompt(1, 18, box=square(18)),
        Prompt(2, 30, points=((70, 50),), labels=(1,)),
        Prompt(2, 38, box=square(22)),
    ]
    expected = stock_propagation(repaired(weights), tmp_path / "frames", rgb, prompts)
    assert_same(Recorded(ours, rgb, prompts, monkeypatch), *expected)


@pytest.mark.long
def test_masks_equal_those_of_the_official_predictors_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick counterpart: `test_masks_equal_those_of_the_official_video_predictor`, at 128 px."""
    torch.set_num_threads(2)
    weights = save_random_weights(tmp_path / "random.pt", image_size=1024)
    ours = Sam2Segmenter(size="tiny", checkpoint=weights)
    rgb = moving_square(3, width=1280, height=720)
    prompts = [Prompt(1, 1, box=(8, 18, 32, 42)), Prompt(2, 1, points=((900, 500),), labels=(1,))]
    expected = stock_propagation(stock_video_predictor(weights, image_size=1024), tmp_path / "frames", rgb, prompts)
    assert_same(Recorded(ours, rgb, prompts, monkeypatch), *expected)
    ours.propagate = False
    assert_same_image(ours, stock_image_predictor(weights, image_size=1024), rgb, prompts)


@pytest.mark.slow
def test_random_weights_give_meaningful_masks(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Recorded(ours, moving_square(12), [BOX], monkeypatch)
    seen = [logits for key, logits in found.logits.items() if found.scores[key] > 0.5]
    assert 3 <= len(seen) < 12, "objects come and go"
    assert all(0.02 < (logits > 0).float().mean() < 0.98 for logits in seen)
    assert (seen[1] - seen[-1]).abs().max() > 1
    other = Recorded(ours, moving_square(12), [replace(BOX, box=(60, 5, 90, 30))], monkeypatch)
    assert other.scores[11, 1] != pytest.approx(found.scores[11, 1], abs=1e-3), "the memory must matter"


@pytest.mark.parametrize(
    "prompts",
    [
        [BOX],
        [Prompt(1, 0, points=((18, 30), (80, 50)), labels=(1, 0))],
        [Prompt(1, 0, box=square(0), points=((18, 30),), labels=(1,))],
        [Prompt(1, 0, mask=square_mask(0))],
        [BOX, Prompt(1, 3, points=((22, 30),), labels=(1,)), Prompt(2, 3, box=(60, 5, 90, 30))],
    ],
    ids=["box", "points", "box and points", "mask", "two objects on two frames"],
)
def test_without_propagation_masks_equal_those_of_the_official_image_predictor(
    prompts: list[Prompt], ours: Sam2Segmenter, stock_images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "propagate", False)
    assert_same_image(ours, stock_images, moving_square(4), prompts)


def assert_same_image(ours: Sam2Segmenter, stock: Any, rgb: UInt8Array, prompts: list[Prompt]) -> None:
    found = {}
    for block in ours.segment(ArraySource(rgb), prompts, on_object_error=raising):
        for column, object_id in enumerate(block.object_id):
            found[int(block.index[0]), int(object_id)] = block.masks[0, column], float(block.score[0, column])
    assert set(found) == {(prompt.frame, prompt.object_id) for prompt in prompts}
    for prompt in prompts:
        mask = None
        if isinstance(prompt.mask, np.ndarray):  # ±10, the logits that the video predictor uses for a mask prompt
            given = torch.from_numpy(prompt.mask)[None, None].float()
            for side, change in ((SIZE, lambda x: (x >= 0.5) * 20.0 - 10.0), (SIZE // 4, lambda x: x)):
                given = change(torch.nn.functional.interpolate(given, (side, side), mode="bilinear", antialias=True))
            mask = given[0].numpy()
        with stock_warnings(), torch.inference_mode():
            stock.set_image(rgb[prompt.frame])
            logits, score, _ = stock.predict(
                np.array(prompt.points) if prompt.points else None,
                np.array(prompt.labels) if prompt.points else None,
                None if prompt.box is None else np.array(prompt.box),
                mask,
                multimask_output=False,
                return_logits=True,
            )
        assert 0 < (logits > 0).mean() < 1
        assert np.array_equal(found[prompt.frame, prompt.object_id][0], logits[0] > 0)
        assert found[prompt.frame, prompt.object_id][1] == pytest.approx(score[0], abs=1e-6)


def test_frames_are_source_frames(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = moving_square(10)
    frames = ArraySource(rgb)
    frames.keep(np.array([1, 4, 5, 9]))
    blocks = list(ours.segment(frames, [Prompt(1, 5, box=square(5))], on_object_error=raising))
    assert [int(block.index[0]) for block in blocks] == [9, 5, 4, 1]
    kept_only = Recorded(ours, rgb[[1, 4, 5, 9]], [Prompt(1, 2, box=square(5))], monkeypatch)
    assert {int(block.index[0]): block.score[0, 0] for block in blocks} == {
        frame: np.float32(kept_only.scores[row, 1]) for row, frame in enumerate([1, 4, 5, 9])
    }


def test_every_frame_is_encoded_once_for_any_number_of_objects(
    ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoded = ours._loaded(), []
    encode = model.forward_image
    monkeypatch.setattr(model, "forward_image", lambda image: encoded.append(image.shape) or encode(image))
    prompts = [replace(BOX, object_id=i) for i in (1, 2, 3)]
    frames = ArraySource(moving_square(4))
    assert len(list(ours.segment(frames, prompts, on_object_error=raising))) == 4
    assert encoded == [(1, 3, SIZE, SIZE)] * 4
    assert frames.num_decoded <= 4 + 1, "the prompt frame is read once more"


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("later_start", [None, 4])
def test_exactly_the_rows_that_are_still_read_are_kept(
    stride: int, reverse: bool, later_start: int | None, ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a memory of two frames besides the prompts', `stride` rows apart, and pointers of five rows.

    The next row reads the row before it, the one 2 · stride − 1 before that at most, and four rows' pointers.
    """
    model = ours._loaded()
    for name, value in (
        ("num_maskmem", 4), ("max_obj_ptrs_in_encoder", 5), ("memory_temporal_stride_for_eval", stride)
    ):  # fmt: skip
        monkeypatch.setattr(model, name, value)
    bank = MemoryBank()
    for row in range(20):
        bank[row] = {"obj_ptr": row, "maskmem_features": row}
    model.forget([ObjectGroup((1,), {}, bank)], 10, reverse=reverse, later_start=later_start)

    def behind(count: int) -> set[int]:
        """The rows that are read next, and those that a pass backwards from `later_start` will read."""
        now = {10 + i if reverse else 10 - i for i in range(count)}
        return now if later_start is None else now | {later_start + 1 + i for i in range(count)}

    memories, pointers = 2 * stride + 1, max(2 * stride + 1, 4)
    assert set(bank) == behind(pointers)
    assert {row for row, output in dict.items(bank) if "maskmem_features" in output} == behind(memories)


@pytest.mark.slow
def test_the_size_of_the_state_is_bounded(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes, states = ours._loaded(), [], []
    # A memory of two frames and five pointers, which a short clip exceeds.
    monkeypatch.setattr(model, "num_maskmem", 4)
    monkeypatch.setattr(model, "max_obj_ptrs_in_encoder", 5)
    forget, new_state = model.forget, model.new_state

    def keep(frames: ArraySource) -> dict[str, Any]:
        states.append(new_state(frames))
        return states[-1]

    def measure(groups: list[ObjectGroup], row: int, **others: Any) -> None:
        forget(groups, row, **others)
        state = {key: value for key, value in states[-1].items() if key != "images"}
        sizes.append(num_bytes([state, *(group.memories() for group in groups)]))

    monkeypatch.setattr(model, "new_state", keep)
    monkeypatch.setattr(model, "forget", measure)
    # From the second frame on, so that a backward pass follows and its inputs are kept as well.
    list(ours.segment(ArraySource(moving_square(18)), [Prompt(1, 1, box=square(1))], on_object_error=raising))
    assert sizes[6] > sizes[0]
    assert len(set(sizes[10:16])) == 1


def num_bytes(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.untyped_storage().nbytes()
    if isinstance(value, dict):
        return sum(num_bytes(item) for item in value.values())
    return sum(num_bytes(item) for item in value) if isinstance(value, list | tuple) else 0


def test_reading_a_dropped_entry_is_an_error() -> None:
    bank = MemoryBank()
    for row in range(4):
        bank[row] = {"obj_ptr": row, "maskmem_features": row}
    bank.trim([range(3, 4)], [range(2, 4)])
    assert set(bank) == {2, 3}
    assert bank.get(9) is None
    with pytest.raises(KeyError, match="row 1 is read although it was dropped"):
        bank.get(1)
    with pytest.raises(KeyError, match="maskmem_features"):
        bank.get(2)["maskmem_features"]
    bank[1] = {"obj_ptr": 5}
    assert bank.get(1) == {"obj_ptr": 5}


def test_the_state_has_the_keys_of_the_official_predictor(ours: Sam2Segmenter, stock: Any, tmp_path: Path) -> None:
    rgb = moving_square(1)
    stock_propagation(stock, tmp_path / "frames", rgb, [BOX])
    state = stock.init_state(str(tmp_path / "frames"))
    own = ours._loaded().new_state(ArraySource(rgb))
    assert list(own) == list(state)
    assert torch.equal(own["images"][0], state["images"][0])


@pytest.mark.slow
def test_no_state_is_kept_between_clips(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Recorded(ours, moving_square(4), [BOX], monkeypatch)
    model = ours._loaded()
    cut_short = ours.segment(ArraySource(moving_square(4, seed=1)), [BOX, LATE_BOX], on_object_error=raising)
    with pytest.raises(KeyError, match="not among the 4 kept frames"):
        next(cut_short)
    begun = ours.segment(ArraySource(moving_square(6, seed=1)), [BOX, LATE_BOX], on_object_error=raising)
    next(begun)
    begun.close()
    again = Recorded(ours, moving_square(4), [BOX], monkeypatch)
    assert ours._loaded() is model
    assert all(torch.equal(again.logits[key], first.logits[key]) for key in first.logits)


@pytest.mark.slow
def test_bf16_is_close_to_fp32_and_does_not_affect_other_code(weights: Path, ours: Sam2Segmenter) -> None:
    rough = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=SIZE, precision="bf16")
    frames, prompts = ArraySource(moving_square(3)), [BOX, replace(LATE_BOX, frame=2)]
    found = []
    for block in rough.segment(frames, prompts, on_object_error=raising):
        assert not torch.is_autocast_enabled("cpu")
        assert not torch.is_inference_mode_enabled()
        found.append(block)
    exact = next(ours.segment(frames, prompts, on_object_error=raising))
    assert len(found) == 3
    assert (found[0].masks[:, 0] == exact.masks[:, 0]).mean() > 0.9


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    ],
)
def test_out_of_memory_errors_are_mapped(
    error: Exception, ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(ours._loaded(), "track_row", fail)
    with pytest.raises(OutOfMemory, match=r"out of (device )?memory in SAM 2") as caught:
        list(ours.segment(ArraySource(moving_square(2)), [BOX], on_object_error=raising))
    assert caught.value.__cause__ is error


def test_other_errors_are_not_mapped_to_out_of_memory(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(ours._loaded(), "track_row", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(ours.segment(ArraySource(moving_square(2)), [BOX], on_object_error=raising))


def test_no_prompts_give_no_masks(ours: Sam2Segmenter) -> None:
    assert list(ours.segment(ArraySource(moving_square(2)), [], on_object_error=raising)) == []


def test_results_can_name_the_weights_and_the_device(ours: Sam2Segmenter, weights: Path) -> None:
    (used,) = ours.weights
    assert (used.file, used.checkpoint, used.licence) == (weights.name, None, None)
    assert used.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert ours.device_name == describe_device(ours._loaded().device)
    assert ours.precision_name == ("bf16" if ours._loaded().device.type == "cuda" else "fp32")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_masks_equal_those_of_the_official_video_predictor_on_a_gpu(
    precision: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=SIZE, precision=precision, device="cuda")
    stock = stock_video_predictor(weights).to("cuda")
    rgb, prompts = moving_square(6), [Prompt(1, 2, box=square(2)), Prompt(2, 2, points=((80, 50),), labels=(1,))]
    with ExitStack() as stack:
        if precision == "bf16":
            stack.enter_context(torch.autocast("cuda", dtype=torch.bfloat16))
            stack.enter_context(tf32(True))
        logits, scores = stock_propagation(stock, tmp_path / "frames", rgb, prompts)
    found = Recorded(ours, rgb, prompts, monkeypatch)
    for key, expected in logits.items():
        assert torch.allclose(found.logits[key], expected, rtol=0, atol=1e-2), key
        assert found.scores[key] == pytest.approx(scores[key], abs=1e-2)
