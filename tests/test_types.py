"""Types refuse arrays with a wrong dtype or shape; the message contains the actual and the expected value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aot.errors import AotError, DecodeError, OutOfMemory, error_context
from aot.lifetimes import Lifetimes
from aot.types import Clip, ClipResult, FrameBlock, MaskBlock, Prompt, QueryPoints, Tracks


def tracks(num_rows: int, num_points: int) -> Tracks:
    shape = (num_rows, num_points)
    return Tracks(np.zeros((*shape, 2), np.float32), np.zeros(shape, bool), *[np.zeros(shape, np.float32)] * 2)


def result() -> ClipResult:
    """Two rows, one object, three points."""
    return ClipResult(
        index=np.arange(2, dtype=np.int64),
        time=np.arange(2.0),
        object_id=np.array([1], np.int32),
        object_name=("mug",),
        object_prompts=([],),
        object_error=("",),
        mask_row=np.arange(2, dtype=np.int64),
        masks=None,
        mask_score=np.zeros((2, 1), np.float32),
        coverage=np.zeros((2, 1), np.float32),
        query=np.zeros((3, 3), np.float32),
        track_object_id=np.ones(3, np.int32),
        tracks=tracks(2, 3),
        in_mask=np.zeros((2, 3), bool),
        lifetimes=Lifetimes.unlimited(np.zeros((2, 3), bool), np.arange(2)),
    )


def test_repr_shows_shapes_not_contents() -> None:
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
        (lambda: Prompt(object_id=1, frame=0, points=((1, 2),), labels=(2,)), r"labels: got \(2,\), expected 1"),
        (lambda: Prompt(object_id=1, frame=0, box=(3, 0, 1, 1)), r"box: got \(3, 0, 1, 1\), expected x0, y0, x1, y1"),
        (lambda: Prompt(object_id=1, frame=0, mask=np.zeros((3, 3))), "mask: got"),
        (lambda: replace(result(), object_name=("a", "b")), "object_name: got 2, expected 1, one per object"),
        (lambda: replace(result(), mask_row=np.zeros(3, np.int64)), r"mask_score: got \(2, 1\).*Tm = 3"),
        (lambda: replace(result(), in_mask=np.zeros((2, 4), bool)), r"in_mask: got \(2, 4\).*N = 3"),
        (lambda: replace(result(), tracks=tracks(2, 4)), r"tracks: got \(2, 4\) \(T, N\), expected \(2, 3\)"),
    ],
)
def test_mismatches_are_refused(make: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()  # type: ignore[operator]


def test_object_ids_of_a_clip() -> None:
    prompts = (Prompt(object_id=5, frame=0), Prompt(object_id=2, frame=1), Prompt(object_id=5, frame=3))
    assert Clip("a", Path("a.mp4"), prompts).object_ids == (2, 5)


def test_every_error_has_its_own_kind() -> None:
    kinds = [error.kind for error in (AotError, *AotError.__subclasses__())]
    assert len(kinds) == len(set(kinds)), "kinds group failures and select them for a retry"


def test_the_innermost_error_context_is_recorded() -> None:
    with pytest.raises(DecodeError) as caught, error_context(clip_id="a", stage="outer"), error_context(stage="inner"):
        raise DecodeError("x")
    assert (caught.value.clip_id, caught.value.stage, caught.value.kind) == ("a", "inner", "decode")
    with pytest.raises(OutOfMemory) as out, error_context(stage="track"):
        raise MemoryError
    assert (out.value.stage, out.value.kind) == ("track", "oom")
