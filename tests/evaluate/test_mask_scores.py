"""J and F: manually computed cases, and comparison with published evaluators on perturbed masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as rle

from aot.datasets.annotations import AnnotatedTruth
from aot.evaluate.clip import evaluate_clip
from aot.evaluate.masks import Series, contour_accuracy, region_similarity
from aot.evaluate.tables import score_rows
from aot.types import BoolArray
from tests.results import write_result

SIZE = 10


def square(x: int, y: int = 0, side: int = 4) -> BoolArray:
    mask = np.zeros((SIZE, SIZE), dtype=np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


EMPTY = square(0, side=0)


def blobs(seed: int, shape: tuple[int, int] = (60, 100), num: int = 4) -> BoolArray:
    """Overlapping disks, some of them across the frame edge."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=np.bool_)
    for _ in range(num):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        mask |= (y - cy) ** 2 + (x - cx) ** 2 <= rng.uniform(3, 15) ** 2
    return mask


def perturbed(mask: BoolArray, seed: int) -> BoolArray:
    """The same mask shifted by a few px, with one more disk."""
    rng = np.random.default_rng(seed)
    return np.roll(mask, rng.integers(-4, 5, 2), axis=(0, 1)) | blobs(seed + 1, mask.shape, num=1)


def test_region_similarity_of_simple_shapes() -> None:
    assert region_similarity(square(0), square(0)) == 1
    assert region_similarity(square(0), square(2)) == pytest.approx(8 / 24)
    assert region_similarity(square(0), square(6, 6)) == 0
    assert region_similarity(EMPTY, EMPTY) == 1
    assert region_similarity(EMPTY, square(0)) == 0
    with pytest.raises(ValueError, match="same size"):
        region_similarity(square(0), np.zeros((2, 2), dtype=np.bool_))


def test_contour_accuracy_of_simple_shapes() -> None:
    assert contour_accuracy(square(3, 3), square(3, 3)) == 1
    assert contour_accuracy(EMPTY, EMPTY) == 1
    assert contour_accuracy(EMPTY, square(0)) == 0
    assert contour_accuracy(square(0), EMPTY) == 0
    assert contour_accuracy(square(0, 0, 2), square(7, 7, 2)) == 0
    # Shifted by one px: the tolerance of ceil(0.008 · 14.1) = 1 px finds every contour pixel.
    assert contour_accuracy(square(3, 3), square(4, 3)) == 1
    # Shifted by three px: of the 16 px of each 5x5 px ring, 3 in the upper row, 3 in the lower and 3 between match.
    assert contour_accuracy(square(1, 3), square(4, 3)) == 9 / 16
    with pytest.raises(ValueError, match="same size"):
        contour_accuracy(square(0), np.zeros((2, 2), dtype=np.bool_))


@pytest.mark.parametrize(("shift", "all_match"), [(4, True), (5, False)])
def test_tolerance_grows_with_the_diagonal(shift: int, all_match: bool) -> None:
    truth = np.zeros((300, 400), dtype=np.bool_)  # ceil(0.008 · 500) = 4 px
    truth[100:200, 100:200] = True
    assert (contour_accuracy(np.roll(truth, shift, axis=1), truth) == 1) == all_match


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0], Series(1.0, 1.0, 0.0)),
        ([1.0, 0.5, 0.5, 0.0], Series(0.5, 0.25, 0.5)),
        # Quarters end at 2.5 and 5.5, which the toolkit rounds up, not to the even number.
        ([1.0, 0.8, 0.3, 0.5, 0.6, 0.2, 0.1], Series(pytest.approx(0.5), 3 / 7, pytest.approx(0.7 - 0.15))),
        ([0.9] * 4 + [0.8] * 5 + [0.1] * 4, Series(pytest.approx(0.6154, abs=1e-4), 9 / 13, pytest.approx(0.8))),
    ],
)
def test_mean_recall_and_decay_of_a_series(values: list[float], expected: Series) -> None:
    assert Series.of(values) == expected


@pytest.mark.parametrize("seed", range(20))
def test_region_similarity_equals_pycocotools(seed: int) -> None:
    truth = blobs(seed)
    mask = perturbed(truth, seed)
    encoded = [rle.encode(np.asfortranarray(one.astype(np.uint8))) for one in (mask, truth)]
    assert region_similarity(mask, truth) == pytest.approx(rle.iou([encoded[0]], [encoded[1]], [0])[0, 0])


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), height=st.integers(2, 160), width=st.integers(2, 240))
def test_contour_accuracy_equals_vos_benchmark_on_any_size(seed: int, height: int, width: int) -> None:
    from vos_benchmark.evaluator import Evaluator

    truth = blobs(seed, (height, width))
    mask = perturbed(truth, seed)
    if not truth.any():
        return
    evaluator = Evaluator()
    evaluator.feed_frame(mask.astype(np.uint8), truth.astype(np.uint8))
    region, contour = evaluator.conclude()
    assert 100 * region_similarity(mask, truth) == pytest.approx(region[1])
    assert 100 * contour_accuracy(mask, truth) == pytest.approx(contour[1])


def save(folder: Path, masks: np.ndarray) -> None:
    """(T, K, H, W) disjoint masks as palette indices, one PNG per frame."""
    folder.mkdir(parents=True)
    for frame, objects in enumerate(masks):
        indices = sum((number + 1) * mask for number, mask in enumerate(objects))
        Image.fromarray(np.asarray(indices, dtype=np.uint8)).save(folder / f"{frame:05d}.png")


def scene(seed: int, num_frames: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """True masks of two objects, and perturbed ones; all (T, 2, H, W), disjoint and visible on every frame."""
    both = []
    for make in (lambda t, k: blobs(seed + 10 * t + k), lambda t, k: perturbed(blobs(seed + 10 * t + k), seed + t)):
        masks = np.array([[make(t, k) for k in range(2)] for t in range(num_frames)])
        masks[:, 0] &= ~masks[:, 1]
        both.append(masks)
    return both[0], both[1]


def test_a_complete_run_equals_vos_benchmark(tmp_path: Path) -> None:
    # Not its function `benchmark`, which leaves a process pool running; it only averages over all objects.
    from vos_benchmark.benchmark import VideoEvaluator

    published = VideoEvaluator(str(tmp_path / "truth"), str(tmp_path / "found"))
    scores, expected = {}, []
    for number, name in enumerate(("one", "two")):
        truth, masks = scene(100 * number)
        save(tmp_path / "truth" / name, truth)
        save(tmp_path / "found" / name, masks)
        path = write_result(tmp_path / f"{name}.h5", masks=masks)
        scores[name] = evaluate_clip(path, AnnotatedTruth(tmp_path / "truth" / name))
        _, region, contour = published(name)
        for object_id, score in scores[name].masks.items():
            expected.append((region[object_id], contour[object_id]))
            assert (100 * score.region.mean, 100 * score.contour.mean) == pytest.approx(expected[-1], abs=1e-3)
    overall = score_rows(scores)[0]
    means = np.mean(expected, axis=0)
    assert [100 * overall[name] for name in ("J", "F", "J&F")] == pytest.approx([*means, means.mean()], abs=1e-3)
    assert overall["J"] < 0.9, "the masks are perturbed enough to distinguish evaluators"
