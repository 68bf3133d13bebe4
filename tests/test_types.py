"""The types refuse what does not fit, and say what they got."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.errors import DecodeError, OutOfMemory, error_context
from aot.types import Clip, FrameBlock, MaskBlock, Prompt, QueryPoints, Tracks


def test_repr_shows_shapes_and_never_contents() -> None:
    block = FrameBlock(np.zeros(2, np.int64), np.zeros(2), np.zeros((2, 4, 6, 3), np.uint8))
    assert repr(block) == "FrameBlock(index=(2,) int64, time=(2,) float64, rgb=(2, 4, 6, 3) uint8)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: FrameBlock(np.zeros(2, np.int64), np.zeros(3), np.zeros((2, 4, 6, 3), np.uint8)),
            r"time: got \(3,\).*B = 2",
        ),
        (
            lambda: FrameBlock(np.zeros(2, np.int64), np.zeros(2), np.zeros((2, 4, 6, 4), np.uint8)),
            r"expected \(B, H, W, 3\)",
        ),
        (
            lambda: QueryPoints(np.zeros((2, 3)), np.zeros(2, np.int32)),
            r"got \(2, 3\) float64, expected \(N, 3\) float32",
        ),
        (lambda: QueryPoints([[0, 1, 2]], np.zeros(1, np.int32)), "got list, expected an array"),
        (
            lambda: Tracks(
                np.zeros((2, 3, 2), np.float32), np.zeros((2, 4), bool), *[np.zeros((2, 3), np.float32)] * 2
            ),
            r"visible: got \(2, 4\)",
        ),
        (
            lambda: MaskBlock(
                np.zeros(1, np.int64), np.zeros(2, np.int32), np.zeros((1, 1, 4, 4), bool), np.zeros((1, 2), np.float32)
            ),
            r"masks: got \(1, 1, 4, 4\)",
        ),
        (lambda: Prompt(object_id=0, frame=0), "object_id: got 0"),
        (lambda: Prompt(object_id=1, frame=-1), "frame: got -1"),
        (lambda: Prompt(object_id=1, frame=0, points=((1, 2),), labels=()), "got 0 labels for 1 points"),
        (lambda: Prompt(object_id=1, frame=0, mask=np.zeros((3, 3))), "mask: got"),
    ],
)
def test_what_does_not_fit_is_refused(make: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()  # type: ignore[operator]


def test_a_clip_knows_its_objects() -> None:
    prompts = (Prompt(object_id=5, frame=0), Prompt(object_id=2, frame=1), Prompt(object_id=5, frame=3))
    assert Clip("a", Path("a.mp4"), prompts).object_ids == (2, 5)


def test_errors_carry_where_they_happened_and_the_innermost_wins() -> None:
    with pytest.raises(DecodeError) as caught, error_context(clip_id="a", stage="outer"), error_context(stage="inner"):
        raise DecodeError("x")
    assert (caught.value.clip_id, caught.value.stage, caught.value.kind) == ("a", "inner", "decode")
    with pytest.raises(OutOfMemory) as out, error_context(stage="track"):
        raise MemoryError
    assert (out.value.stage, out.value.kind) == ("track", "oom")
