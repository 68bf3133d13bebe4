"""SAM 2 with several objects in one pass of the model: the masks of the official predictor, in fewer passes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from aot.errors import OutOfMemory
from aot.segmentation.sam2 import Sam2Segmenter
from aot.segmentation.sam2.objects import MAX_OBJECTS, group_objects, objects_that_fit
from aot.types import Prompt
from tests.device_waits import DeviceWaits
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import (
    remember_features,
    save_random_weights,
    stock_propagation,
    stock_video_predictor,
)
from tests.segmentation.sam2_scenarios import (
    BOX,
    CRASHES_STOCK,
    SCENARIOS,
    Recorded,
    assert_same,
    raising,
    repaired,
    square,
    with_companions,
)
from tests.synthetic import moving_square
from tests.tracking.cotracker3.allocations import peak_allocated_bytes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that amplify rounding errors less than those of other tests: a batch changes the order of sums."""
    return save_random_weights(tmp_path_factory.mktemp("weights") / "mild.pt", scale=1.5)


@pytest.fixture(scope="module")
def ours(weights: Path) -> Sam2Segmenter:
    segmenter = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128)
    remember_features(segmenter._loaded())
    return segmenter


@pytest.fixture(scope="module")
def stock(weights: Path) -> Any:
    predictor = stock_video_predictor(weights)
    remember_features(predictor)
    return predictor


@pytest.fixture
def batching(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> Sam2Segmenter:
    monkeypatch.setattr(ours, "batch_objects", True)
    return ours


@pytest.fixture
def passes(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of objects in every pass of the model on a row without a prompt."""
    counted: list[int] = []
    infer = ours._loaded()._run_single_frame_inference

    def count(**arguments: Any) -> Any:
        if not arguments["is_init_cond_frame"]:
            counted.append(arguments["batch_size"])
        return infer(**arguments)

    monkeypatch.setattr(ours._loaded(), "_run_single_frame_inference", count)
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_masks_in_a_batch_equal_those_of_the_official_video_predictor(
    name: str,
    batching: Sam2Segmenter,
    passes: list[int],
    weights: Path,
    stock: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Quick counterpart: `test_a_batch_gives_the_masks_of_a_loop_beyond_all_windows`."""
    num_frames, prompts = SCENARIOS[name][0], with_companions(SCENARIOS[name][1])
    rgb = moving_square(num_frames)
    expected = stock_propagation(
        repaired(weights) if name in CRASHES_STOCK else stock, tmp_path / "frames", rgb, prompts
    )
    assert_same(Recorded(batching, rgb, prompts, monkeypatch), *expected, has_same_masks=False)
    assert min(passes, default=3) >= 3


def test_a_batch_gives_the_masks_of_a_loop_beyond_all_windows(
    batching: Sam2Segmenter, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a memory of one frame and two pointers besides the prompts', which both passes exceed."""
    model = batching._loaded()
    monkeypatch.setattr(model, "num_maskmem", 3)
    monkeypatch.setattr(model, "max_obj_ptrs_in_encoder", 3)
    rgb = moving_square(9)
    prompts = [Prompt(n, 3, box=square(3 * n)) for n in (1, 2)] + [Prompt(3, 4, box=(60, 5, 90, 30))]
    found = Recorded(batching, rgb, prompts, monkeypatch)
    # Forwards 3..8, backwards 3..0; the row of a prompt needs no pass.
    assert sorted(passes) == [1] * (5 + 4) + [2] * (5 + 3)
    batching.batch_objects = False
    expected = Recorded(batching, rgb, prompts, monkeypatch)
    assert_same(found, expected.logits, expected.scores, has_same_masks=False)


@pytest.mark.parametrize(("batch_objects", "sizes"), [("auto", [1, 1]), (False, [1, 1]), (True, [2])])
def test_a_batch_is_the_default_on_cuda_only(
    batch_objects: Any, sizes: list[int], ours: Sam2Segmenter, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "batch_objects", batch_objects)
    prompts = [Prompt(n, 0, box=square(n)) for n in (1, 2)]
    list(ours.segment(ArraySource(moving_square(2)), prompts, on_object_error=raising))
    assert passes == sizes


@pytest.mark.parametrize(("most", "sizes"), [(2, [[4, 2, 2], [2, 2]]), (1, [[4, 2, 1, 1, 2, 1, 1], [1, 1, 1, 1]])])
def test_a_batch_that_does_not_fit_is_divided_and_stays_divided(
    most: int, sizes: list[list[int]], batching: Sam2Segmenter, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = batching._loaded()
    infer = model._run_single_frame_inference
    rgb, prompts = moving_square(3), [Prompt(n, 0, box=square(2 * n)) for n in (1, 2, 3, 4)]

    def fail(**arguments: Any) -> Any:
        result = infer(**arguments)
        if arguments["batch_size"] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return result

    with monkeypatch.context() as patch:
        patch.setattr(model, "_run_single_frame_inference", fail)
        found = Recorded(batching, rgb, prompts, monkeypatch)
    assert passes == [size for row in sizes for size in row]
    batching.batch_objects = False
    expected = Recorded(batching, rgb, prompts, monkeypatch)
    assert_same(found, expected.logits, expected.scores, has_same_masks=False)


def test_memory_that_is_not_sufficient_for_one_object_is_an_error(
    batching: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = batching._loaded()
    infer = model._run_single_frame_inference

    def fail(**arguments: Any) -> Any:
        if not arguments["is_init_cond_frame"]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return infer(**arguments)

    monkeypatch.setattr(model, "_run_single_frame_inference", fail)
    with pytest.raises(OutOfMemory, match="out of device memory in SAM 2"):
        prompts = [BOX, Prompt(2, 0, box=square(1))]
        list(batching.segment(ArraySource(moving_square(2)), prompts, on_object_error=raising))


@pytest.mark.parametrize("batch_objects", [False, True])
@pytest.mark.parametrize("num_objects", [1, 3])
def test_the_host_waits_for_the_device_once_per_frame_for_any_number_of_objects(
    batch_objects: bool, num_objects: int, ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its masks and their scores; on a GPU both are copied asynchronously, and waited for once."""
    monkeypatch.setattr(ours, "batch_objects", batch_objects)
    model = ours._loaded()
    # The encoder itself: what remembers its features in these tests reads the images.
    monkeypatch.setattr(model, "forward_image", type(model).forward_image.__get__(model))
    prompts = [Prompt(n, 0, box=square(n)) for n in range(1, num_objects + 1)]
    per_frame, before = [], Counter[str]()
    with DeviceWaits() as waits:
        for _ in ours.segment(ArraySource(moving_square(5)), prompts, on_object_error=raising):
            per_frame.append(waits.counts - before)
            before = waits.counts.copy()
    # Before the first masks come the prompts, and two rows: masks are taken when the next row is in the queue.
    assert per_frame[1:-1] == [{"cpu": 2, "numpy": 2}] * 3
    assert per_frame[-1] == {"numpy": 2}


def output(row: int, object_id: int) -> dict[str, Any]:
    return {"obj_ptr": torch.full((1, 2), 10.0 * row + object_id), "maskmem_pos_enc": [torch.zeros(1, 3)]}


@pytest.mark.parametrize(
    ("max_objects", "only_powers_of_two", "sizes"),
    [
        (16, False, [7, 1]),
        (4, False, [4, 3, 1]),
        (1, False, [1] * 8),
        (16, True, [4, 2, 1, 1]),
        (3, True, [2, 2, 2, 1, 1]),
    ],
)
def test_objects_are_grouped_by_the_rows_of_their_prompts(
    max_objects: int, only_powers_of_two: bool, sizes: list[int]
) -> None:
    prompted = {object_id: {row: output(row, object_id) for row in (5, 2)} for object_id in range(1, 8)}
    prompted[9] = {2: output(2, 9)}
    groups = group_objects(prompted, max_objects, only_powers_of_two=only_powers_of_two)
    assert [len(group.object_ids) for group in groups] == sizes
    assert [object_id for group in groups for object_id in group.object_ids] == [*range(1, 8), 9]
    for group in groups:
        assert list(group.prompted) == ([2] if group.object_ids == (9,) else [2, 5])
        for row, joined in group.prompted.items():
            assert joined["obj_ptr"][:, 0].tolist() == [10.0 * row + object_id for object_id in group.object_ids]
            assert joined["maskmem_pos_enc"][0].shape == (len(group.object_ids), 3)


def test_halves_of_a_group_have_the_memories_of_their_objects() -> None:
    (group,) = group_objects({i: {0: output(0, i)} for i in (1, 2, 3)}, 16, only_powers_of_two=False)
    group.tracked[1] = {"obj_ptr": torch.tensor([[1.0], [2.0], [3.0]])}
    group.tracked[2] = {"obj_ptr": torch.tensor([[4.0], [5.0], [6.0]])}
    group.tracked.trim([range(2, 3)], [])
    first, second = group.halves()
    assert (first.object_ids, second.object_ids) == ((1,), (2, 3))
    assert second.prompted[0]["obj_ptr"][:, 0].tolist() == [2.0, 3.0]
    assert second.tracked.get(2)["obj_ptr"][:, 0].tolist() == [5.0, 6.0]
    with pytest.raises(KeyError, match="row 1 is read although it was dropped"):
        second.tracked.get(1)


@pytest.mark.parametrize(
    ("free", "expected"), [(0, 1), (2 * 256 * 1024**2, 1), (2 * 5 * 256 * 1024**2, 5), (10**12, MAX_OBJECTS)]
)
def test_a_batch_takes_half_of_the_free_memory_at_most(free: int, expected: int) -> None:
    assert objects_that_fit(1024, free) == expected


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_memory_of_a_batch_is_at_most_as_predicted(precision: Any, weights: Path) -> None:
    image_size, count = 256, 4
    segmenter = Sam2Segmenter(
        size="tiny", checkpoint=weights, image_size=image_size, precision=precision, batch_objects=True
    )
    model, frames = segmenter._loaded(), ArraySource(moving_square(20))
    with segmenter._precision(model):
        state = model.new_state(frames)
        for object_id in range(count):
            model.add_new_points_or_box(state, 0, object_id, box=square(object_id % 8))
        model.propagate_in_video_preflight(state)
        (group,) = model.take_objects(state, MAX_OBJECTS)
        model.track_row(state, [group], 1, reverse=False)
        for row in range(2, 19):
            group.tracked[row] = group.tracked[1]
        model._get_image_feature(state, 19, 1)
        assert group.memories()["non_cond_frame_outputs"] is group.tracked
        peak = peak_allocated_bytes(lambda: model.track_row(state, [group], 19, reverse=False))
    predicted = 0.5 * 2 * 256 * image_size**2 * count
    assert 0.3 * predicted < peak < predicted
