"""Mask prompts, used unchanged."""

from __future__ import annotations

import numpy as np
import pytest

from aot.segmentation.base import Segmenter
from aot.segmentation.none import NoSegmenter
from aot.types import Prompt
from tests.segmentation.contract import (
    KEPT,
    PROMPTS,
    FailingObjectContract,
    SegmenterContract,
    clip,
    mask_prompt,
    segment,
)


class TestContract(SegmenterContract, FailingObjectContract):
    @pytest.fixture
    def segmenter(self) -> Segmenter:
        return NoSegmenter()

    @pytest.fixture
    def unusable(self) -> Prompt:
        return Prompt(object_id=5, frame=4, box=(60, 40, 79, 59))


def test_mask_prompts_are_yielded_unchanged() -> None:
    found, _ = segment(NoSegmenter(), clip(), PROMPTS)
    for prompt in PROMPTS:
        assert np.array_equal(found[prompt.frame, prompt.object_id], np.asarray(prompt.mask))


def test_an_object_with_a_mask_and_a_later_box_fails() -> None:
    prompts = [mask_prompt(5, KEPT[0], 60, 40), Prompt(object_id=5, frame=4, points=((60, 40),), labels=(1,))]
    found, errors = segment(NoSegmenter(), clip(), prompts)
    assert not found
    assert "object 5, frame 4: segmenter=none cannot make a mask from a box or points" in str(errors[5])
