"""The guarantees of every segmenter (`aot.segmentation.base`), as test classes to inherit from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aot.errors import AotError
from aot.segmentation.base import Segmenter
from aot.types import BoolArray, Prompt
from tests.fakes import ArraySource
from tests.synthetic import moving_square

HEIGHT, WIDTH = 64, 96
KEPT = [0, 1, 3, 4, 6, 7]


def clip() -> ArraySource:
    """Eight frames, two of which have been dropped."""
    source = ArraySource(moving_square(8, WIDTH, HEIGHT))
    source.keep(np.array(KEPT))
    return source


def mask_prompt(object_id: int, frame: int, x: int, y: int) -> Prompt:
    """A mask of 20x20 px; the square of `moving_square` is at (8 + 2 t, 20) on frame t."""
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + 20, x : x + 20] = True
    return Prompt(object_id=object_id, frame=frame, mask=mask)


# The first object is corrected on a later frame; the second starts in the middle of the clip.
PROMPTS = [mask_prompt(3, 0, 8, 20), mask_prompt(3, 6, 20, 20), mask_prompt(5, 4, 60, 40)]


def segment(
    segmenter: Segmenter, source: ArraySource, prompts: list[Prompt]
) -> tuple[dict[tuple[int, int], BoolArray], dict[int, AotError]]:
    """Masks by (frame, object), each yielded once; and the errors of objects, which yield no masks after failing."""
    found: dict[tuple[int, int], BoolArray] = {}
    errors: dict[int, AotError] = {}
    for block in segmenter.segment(source, prompts, on_object_error=errors.__setitem__):
        assert block.masks.shape[2:] == (source.height, source.width), "masks have the size of the source"
        assert ((block.score >= 0) & (block.score <= 1)).all()
        for frame, masks in zip(block.index.tolist(), block.masks):
            for object_id, mask in zip(block.object_id.tolist(), masks):
                assert object_id not in errors, f"object {object_id} has failed"
                assert (frame, object_id) not in found, f"frame {frame}, object {object_id} was yielded twice"
                found[frame, object_id] = mask.copy()
    return found, errors


class SegmenterContract:
    """Subclasses define the fixture `segmenter`, with and without `propagate` if the class supports both."""

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        raise NotImplementedError

    def test_every_mask_is_yielded_once(self, segmenter: Segmenter) -> None:
        found, errors = segment(segmenter, clip(), PROMPTS)
        frames = {3: KEPT, 5: KEPT} if segmenter.propagate else {3: [0, 6], 5: [4]}
        assert not errors
        assert sorted(found) == sorted((frame, object_id) for object_id in frames for frame in frames[object_id])

    def test_one_instance_segments_several_clips(self, segmenter: Segmenter) -> None:
        first, _ = segment(segmenter, clip(), PROMPTS)
        other = mask_prompt(1, 0, 0, 0).mask
        assert isinstance(other, np.ndarray)
        segment(
            segmenter,
            ArraySource(moving_square(2, 50, 40, seed=1)),
            [Prompt(object_id=1, frame=0, mask=other[:40, :50].copy())],
        )
        again, _ = segment(segmenter, clip(), PROMPTS)
        assert first.keys() == again.keys()
        for key, mask in first.items():
            assert np.array_equal(mask, again[key]), f"frame {key[0]}, object {key[1]}"

    def test_neither_the_clip_nor_the_prompts_are_changed(self, segmenter: Segmenter) -> None:
        source, prompts = clip(), [replace(prompt) for prompt in PROMPTS]
        before = [np.array(prompt.mask) for prompt in prompts]
        segment(segmenter, source, prompts)
        assert source.index.tolist() == KEPT
        assert all(np.array_equal(mask, prompt.mask) for mask, prompt in zip(before, prompts))

    def test_a_clip_of_one_frame(self, segmenter: Segmenter) -> None:
        found, _ = segment(segmenter, ArraySource(moving_square(1, WIDTH, HEIGHT)), PROMPTS[:1])
        assert list(found) == [(0, 3)]


class FailingObjectContract:
    """For segmenters that can fail to find an object; `unusable` is a prompt for object 5 that they cannot use."""

    @pytest.fixture
    def segmenter(self) -> Segmenter:
        raise NotImplementedError

    @pytest.fixture
    def unusable(self) -> Prompt:
        raise NotImplementedError

    def test_a_failed_object_yields_no_masks_and_does_not_affect_others(
        self, segmenter: Segmenter, unusable: Prompt
    ) -> None:
        found, errors = segment(segmenter, clip(), [*PROMPTS[:2], unusable, mask_prompt(5, 6, 60, 40)])
        assert list(errors) == [5]
        assert "object 5" in str(errors[5])
        assert {object_id for _, object_id in found} == {3}
