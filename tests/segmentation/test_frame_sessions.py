"""Sessions on single frames: the same masks as on the prompt frames of a run, each frame encoded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aot.errors import AotError
from aot.segmentation.base import InteractiveSegmenter, Segmenter
from aot.segmentation.grabcut import GrabCutSegmenter
from aot.segmentation.none import NoSegmenter
from aot.segmentation.sam2 import Sam2Segmenter
from aot.types import MaskBlock, Prompt
from tests.fakes import ArraySource
from tests.synthetic import moving_square

RGB = moving_square(3)
SQUARE = Prompt(object_id=1, frame=1, box=(9, 19, 31, 41))
CORNER = Prompt(object_id=4, frame=1, points=((60.0, 50.0), (20.0, 30.0)), labels=(1, 0))
GIVEN = np.zeros(RGB.shape[1:3], np.bool_)
GIVEN[10:30, 40:60] = True


@pytest.fixture(scope="module", params=["grabcut", pytest.param("sam2", marks=pytest.mark.slow)])
def segmenter(request: pytest.FixtureRequest) -> Any:
    if request.param == "grabcut":
        return GrabCutSegmenter(propagate=False)
    request.getfixturevalue("one_thread")
    segmenter = Sam2Segmenter(
        size="tiny", checkpoint=request.getfixturevalue("weights"), image_size=128, propagate=False
    )
    segmenter._model = request.getfixturevalue("ours")._loaded()
    return segmenter


def run(segmenter: Segmenter, prompts: list[Prompt]) -> MaskBlock:
    def raising(object_id: int, error: AotError) -> None:
        raise error

    (block,) = segmenter.segment(ArraySource(RGB), prompts, on_object_error=raising)
    return block


@pytest.mark.parametrize(
    "prompts",
    [[SQUARE], [SQUARE, CORNER], [SQUARE, Prompt(object_id=2, frame=1, mask=GIVEN)]],
    ids=["a box", "a box and points", "a box and a mask"],
)
def test_masks_equal_those_on_the_prompt_frames_of_a_run(segmenter: Any, prompts: list[Prompt]) -> None:
    assert isinstance(segmenter, InteractiveSegmenter)
    session = segmenter.open_frame(RGB[1])
    session.masks([SQUARE])
    asked, expected = session.masks(prompts), run(segmenter, prompts)
    assert asked.object_id.tolist() == expected.object_id.tolist()
    assert asked.index.tolist() == [1]
    np.testing.assert_array_equal(asked.masks, expected.masks)
    np.testing.assert_allclose(asked.score, expected.score, rtol=1e-6)


def test_a_prompt_that_finds_nothing_gives_an_empty_mask() -> None:
    session = GrabCutSegmenter().open_frame(RGB[1])
    everything = Prompt(object_id=1, frame=1, points=((3.0, 3.0), (3.0, 3.0)), labels=(1, 0))
    block = session.masks([everything])
    assert (block.masks.any(), block.score[0, 0]) == (False, 0.0)


@pytest.mark.usefixtures("one_thread")
def test_sam2_encodes_a_frame_once(ours: Sam2Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ours.open_frame(RGB[1])
    encoded: list[int] = []
    model = ours._loaded()
    monkeypatch.setattr(model, "forward_image", lambda *_: encoded.append(1))
    session.masks([SQUARE])
    session.masks([SQUARE, CORNER])
    assert encoded == []


def test_segmenters_without_frame_sessions() -> None:
    assert not isinstance(NoSegmenter(), InteractiveSegmenter)
