"""Fake implementations of the roles' protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from aot.checkpoints import Weights
from aot.decoding.base import FrameSource
from aot.detection.base import Detections
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


class ListedDetector:
    """Finds listed boxes; the red value of a frame's first pixel is its number.

    Args:
        listed: frame → text → boxes with their scores.
        masks: whether it also gives masks, which fill the boxes.
    """

    min_score = 0.3
    max_overlap = 0.5
    model_name = "listed"

    def __init__(
        self, listed: Mapping[int, Mapping[str, Sequence[tuple[tuple[float, ...], float]]]], *, masks: bool = False
    ) -> None:
        self.listed = listed
        self.masks = masks
        self.calls: list[tuple[int, str]] = []

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        frame = int(rgb[0, 0, 0])
        self.calls.append((frame, text))
        found = self.listed.get(frame, {}).get(text, ())
        good = [(box, score) for box, score in found if score >= min_score]
        masks = np.zeros((len(good), *rgb.shape[:2]), dtype=np.bool_)
        for mask, (box, _) in zip(masks, good):
            x0, y0, x1, y1 = map(int, box)
            mask[y0:y1, x0:x1] = True
        return Detections(
            boxes=np.array([box for box, _ in good], dtype=np.float32).reshape(-1, 4),
            scores=np.array([score for _, score in good], dtype=np.float32),
            masks=masks if self.masks else None,
            best_score=max((score for _, score in found), default=None),
        )


class SquareDetector(ListedDetector):
    """Finds the bright square of `moving_square`, which is at (8 + 2 t, 20), by the word "square".

    Args:
        first_frame: before it, the score of the square is 0.1.
        masks: as of `ListedDetector`.
    """

    model_name = "squares"

    def __init__(self, *, first_frame: int = 0, masks: bool = False) -> None:
        super().__init__({}, masks=masks)
        self.first_frame = first_frame
        self.weights = (Weights("detector.safetensors", "cd34", checkpoint="a/b", licence="Apache-2.0"),)

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        columns = np.flatnonzero((rgb.min(axis=-1) > 110).sum(axis=0) > 8)
        frame = (int(columns[0]) - 8 + 1) // 2
        score = 0.9 if text == "square" and frame >= self.first_frame else 0.1
        x = 8 + 2 * frame
        boxes = ((x, 20.0, x + 20.0, 40.0), score), ((x + 1, 20.0, x + 20.0, 40.0), score - 0.05)
        self.listed = {int(rgb[0, 0, 0]): {text: boxes}}
        return super().detect(rgb, text, min_score=min_score)


class ColourDetector:
    """Finds the objects of the demo by the colours of their textures, which the first word names.

    Args:
        min_score, max_overlap: as of every detector.
    """

    COLOURS = {
        "red": ((196, 52, 40), (236, 132, 60), (120, 24, 32)),
        "pink": ((206, 60, 140), (246, 160, 200), (110, 20, 84)),
    }
    model_name = "colours"

    def __init__(self, min_score: float = 0.3, max_overlap: float = 0.5) -> None:
        self.min_score, self.max_overlap = min_score, max_overlap

    def detect(self, rgb: UInt8Array, text: str, *, min_score: float) -> Detections:
        near = np.zeros(rgb.shape[:2], dtype=np.uint8)
        for colour in self.COLOURS.get(text.split()[0], ()):
            near |= (np.abs(rgb.astype(int) - colour).max(axis=-1) < 40).astype(np.uint8)
        for operation in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN):
            near = cv2.morphologyEx(near, operation, np.ones((9, 9), np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(near)
        x, y, width, height, area = stats[1:].T.astype(np.float32)
        scores = np.minimum(1, area / 5000).astype(np.float32)
        good = scores >= min_score
        return Detections(
            boxes=np.column_stack([x, y, x + width, y + height])[good],
            scores=scores[good],
            best_score=float(scores.max()) if len(scores) else None,
        )
