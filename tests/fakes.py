"""Fake implementations of the roles' protocols."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from aot.decoding.base import FrameSource
from aot.errors import SegmentationError
from aot.segmentation.base import OnObjectError
from aot.types import BoolArray, Float32Array, Int64Array, MaskBlock, Prompt, QueryPoints, Tracks, UInt8Array


class ArraySource(FrameSource):
    """A clip in memory: (T, H, W, 3) uint8 RGB."""

    def __init__(self, rgb: UInt8Array, fps: float = 25.0) -> None:
        super().__init__(
            index=np.arange(len(rgb), dtype=np.int64),
            time=np.arange(len(rgb)) / fps,
            width=rgb.shape[2],
            height=rgb.shape[1],
            fps=fps,
            num_source_frames=len(rgb),
            decoder="memory",
            decoder_version="1",
        )
        self._rgb = rgb

    def _read(self, index: Int64Array) -> UInt8Array:
        return self._rgb[index]

    def _release(self) -> None:
        pass


class BoxSegmenter:
    """Fills the box of every prompt on every frame; fails an object without a box."""

    def __init__(self, propagate: bool = True) -> None:
        self.propagate = propagate

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        boxes = {prompt.object_id: prompt.box for prompt in prompts if prompt.box is not None}
        for object_id in {prompt.object_id for prompt in prompts} - set(boxes):
            on_object_error(object_id, SegmentationError(f"object {object_id}: no box"))
        index = frames.index if self.propagate else np.unique([prompt.frame for prompt in prompts]).astype(np.int64)
        for block in frames.blocks(index):
            masks = np.zeros((len(block.index), len(boxes), frames.height, frames.width), dtype=np.bool_)
            for column, box in enumerate(boxes.values()):
                x0, y0, x1, y1 = map(int, box)
                masks[:, column, y0:y1, x0:x1] = True
            ids = np.array(list(boxes), dtype=np.int32)
            yield MaskBlock(block.index, ids, masks, np.ones(masks.shape[:2], dtype=np.float32))


class StillTracker:
    """Reports that no point moves."""

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        shape = (len(frames.index), len(queries))
        return Tracks(
            xy=np.repeat(queries.txy[None, :, 1:], shape[0], axis=0),
            visible=np.ones(shape, dtype=np.bool_),
            visibility=np.ones(shape, dtype=np.float32),
            confidence=np.ones(shape, dtype=np.float32),
        )

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        return 17 * num_frames * num_points


class CentreSampler:
    """Samples the centre of a mask; no point from a mask of fewer than 4 px."""

    max_points = 1

    def sample(self, mask: BoolArray) -> Float32Array:
        y, x = np.nonzero(mask)
        return np.array([[x.mean(), y.mean()]], dtype=np.float32) if len(x) >= 4 else np.zeros((0, 2), dtype=np.float32)
