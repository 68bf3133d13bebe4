"""Clips and prompts on which SAM 2 is compared with the official predictors, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from aot.errors import AotError
from aot.segmentation.sam2 import Sam2Segmenter, leaving
from aot.segmentation.sam2.model import import_sam2
from aot.types import BoolArray, MaskBlock, Prompt, UInt8Array
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import LOGITS, stock_video_predictor

streaming = import_sam2("aot.segmentation.sam2.streaming")


def square(t: int) -> tuple[float, float, float, float]:
    return 8.0 + 2 * t, 20.0, 28.0 + 2 * t, 40.0


def square_mask(t: int) -> BoolArray:
    mask = np.zeros((64, 96), np.bool_)
    x0, y0, x1, y1 = map(int, square(t))
    mask[y0:y1, x0:x1] = True
    return mask


def repaired(weights: Path) -> Any:
    """The official predictor without its error for a pass that starts before the first prompt of an object."""
    predictor = stock_video_predictor(weights)
    streaming.StreamingPredictor.cast_memories(predictor)
    return predictor


def raising(object_id: int, error: AotError) -> None:
    raise error


class Recorded:
    """The masks that the segmenter yielded, and their logits."""

    def __init__(
        self, ours: Sam2Segmenter, rgb: UInt8Array, prompts: Sequence[Prompt], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorded: list[torch.Tensor] = []
        binary = leaving.binary

        def record(logits: torch.Tensor) -> torch.Tensor:
            recorded.extend(logits.clone())
            return binary(logits)

        with monkeypatch.context() as patch:
            patch.setattr(leaving, "binary", record)
            self.blocks: list[MaskBlock] = list(ours.segment(ArraySource(rgb), prompts, on_object_error=raising))
        keys = [(int(block.index[0]), int(i)) for block in self.blocks for i in block.object_id]
        assert len(set(keys)) == len(keys), "a (frame, object) was yielded twice"
        self.logits: LOGITS = dict(zip(keys, recorded))
        self.scores = dict(zip(keys, (float(s) for block in self.blocks for s in block.score[0])))
        self.masks = dict(zip(keys, (mask for block in self.blocks for mask in block.masks[0])))


def assert_same(
    found: Recorded, logits: LOGITS, scores: dict[tuple[int, int], float], *, has_same_masks: bool = True
) -> None:
    """Compare logits and scores, and masks unless another order of sums may change pixels whose logit is nearly 0."""
    assert set(found.logits) == set(logits)
    for key, expected in logits.items():
        assert torch.allclose(found.logits[key], expected, rtol=0, atol=1e-4), key
        shown = expected if has_same_masks else found.logits[key]
        assert np.array_equal(found.masks[key], (shown > 0).numpy()), key
        assert found.scores[key] == pytest.approx(scores[key], abs=1e-6 if has_same_masks else 1e-5), key


BOX = Prompt(1, 0, box=square(0))
LATE_BOX = Prompt(2, 4, box=(60, 5, 90, 30))
SCENARIOS: dict[str, tuple[int, list[Prompt]]] = {
    "box": (5, [BOX]),
    "one point": (3, [Prompt(1, 0, points=((18, 30),), labels=(1,))]),
    "points of both labels": (3, [Prompt(1, 0, points=((18, 30), (80, 50)), labels=(1, 0))]),
    "box and points": (3, [Prompt(1, 0, box=square(0), points=((18, 30), (10, 22)), labels=(1, 0))]),
    "mask": (3, [Prompt(1, 0, mask=square_mask(0))]),
    "two objects": (5, [BOX, Prompt(2, 0, points=((80, 50),), labels=(1,))]),
    "late object": (4, [BOX, replace(LATE_BOX, frame=2)]),
    "middle of the clip": (5, [Prompt(1, 2, box=square(2))]),
    "correction": (5, [BOX, Prompt(1, 3, points=((22, 30), (80, 50)), labels=(1, 0))]),
    "correction by background points only": (4, [BOX, Prompt(1, 2, points=((80, 50),), labels=(0,))]),
    "correction by a mask": (4, [Prompt(1, 1, box=square(1)), Prompt(1, 2, mask=square_mask(2))]),
    "one frame": (1, [BOX]),
}
QUICK = {"one frame", "one point", "mask"}
CRASHES_STOCK = {"late object"}
"""A pass starts before the first prompt of an object: in float32 the official predictor raises an error."""


def with_companions(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Each object and two more, with other prompts on the same frames: objects that can share a batch."""
    companions = [
        companion
        for prompt in prompts
        for companion in (
            Prompt(prompt.object_id + 10, prompt.frame, box=(60, 5, 90, 20 + 10 * prompt.object_id)),
            Prompt(
                prompt.object_id + 20, prompt.frame, points=((70, 45), (18, 20 + 10 * prompt.object_id)), labels=(1, 0)
            ),
        )
    ]
    return sorted([*prompts, *companions], key=lambda prompt: (prompt.object_id, prompt.frame))
