"""Masks on their way from the device to the host: those of a frame together, without waiting for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from aot.types import MaskBlock

if TYPE_CHECKING:
    from aot.segmentation.sam2.streaming import RowOutput, StreamingPredictor

# Bytes of logits at the size of the source that exist at once.
_LOGITS_BYTES = 128 * 2**20


@dataclass(frozen=True, eq=False)
class LeavingBlock:
    """One frame's masks on their way from the device to the host."""

    frame: int
    object_ids: list[int]
    masks: torch.Tensor
    """(K, H, W) bool, on the host."""
    scores: torch.Tensor
    """(K,) float32, on the host."""
    event: torch.cuda.Event | None
    """Happens when both have arrived; None: they have."""

    def arrived(self) -> MaskBlock:
        """Wait for the masks."""
        if self.event is not None:
            self.event.synchronize()
        return MaskBlock(
            index=np.array([self.frame], np.int64),
            object_id=np.array(self.object_ids, np.int32),
            masks=self.masks.numpy()[np.newaxis],
            score=self.scores.numpy()[np.newaxis],
        )


def leave(frame: int, model: StreamingPredictor, state: Any, found: Mapping[int, RowOutput]) -> LeavingBlock:
    """Start to copy one frame's masks and scores to the host; the device is not waited for.

    Args:
        frame: number of the frame in the source.
        model: that found the objects.
        state: of the clip.
        found: the outputs by object id.
    """
    object_ids = sorted(found)
    logits = torch.cat([found[object_id].logits for object_id in object_ids])
    at_once = max(1, _LOGITS_BYTES // (4 * state["video_height"] * state["video_width"]))
    parts = [logits[first : first + at_once] for first in range(0, len(logits), at_once)]
    masks = torch.cat([binary(model.at_source_size(state, part)) for part in parts])
    scores = torch.cat([found[object_id].score_logit for object_id in object_ids])[:, 0].float().sigmoid()
    if masks.device.type != "cuda":
        return LeavingBlock(frame, object_ids, masks.cpu(), scores.cpu(), None)
    on_host = [torch.empty_like(values, device="cpu", pin_memory=True) for values in (masks, scores)]
    for target, values in zip(on_host, (masks, scores)):
        target.copy_(values, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return LeavingBlock(frame, object_ids, on_host[0], on_host[1], event)


def binary(logits: torch.Tensor) -> torch.Tensor:
    """(K, H, W) masks of logits."""
    return logits > 0
