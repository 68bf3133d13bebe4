"""No segmenter: mask prompts are the only masks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import SegmentationError
from aot.segmentation.base import OnObjectError
from aot.types import MaskBlock, Prompt


class NoSegmenter:
    """Passes mask prompts through. An object needs a mask prompt, or its own query points and no other prompt."""

    propagate = False

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        unusable = {prompt.object_id: prompt for prompt in prompts if not isinstance(prompt.mask, np.ndarray)}
        for object_id, prompt in unusable.items():
            message = (
                f"object {object_id}, frame {prompt.frame}: segmenter=none cannot make a mask from a box or points; "
                f"give a mask or only query_points, or use segmenter=sam2 or segmenter=grabcut"
            )
            on_object_error(object_id, SegmentationError(message))
        for prompt in prompts:
            if isinstance(prompt.mask, np.ndarray) and prompt.object_id not in unusable:
                yield MaskBlock(
                    index=np.array([prompt.frame], dtype=np.int64),
                    object_id=np.array([prompt.object_id], dtype=np.int32),
                    masks=prompt.mask[None, None],
                    score=np.ones((1, 1), dtype=np.float32),
                )
