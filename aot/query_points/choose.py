"""The query points of a clip: from the manifest where it gives them, otherwise sampled inside the objects' masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aot.errors import AotError, SegmentationError
from aot.query_points.base import AdvisesOnPoints, QuerySampler
from aot.segmentation.base import Segmenter, mask_advice
from aot.types import BoolArray, Float32Array, Prompt, QueryPoints

_IN_THE_MANIFEST = "or give query_points in the manifest"


@dataclass(frozen=True)
class ChosenPoints:
    """The query points of a clip, and what has to be reported about them."""

    queries: QueryPoints | None
    """None: every object has failed."""
    errors: dict[int, AotError]
    """Object id → error, of the objects that failed before or got no point."""
    notes: tuple[str, ...]
    """Objects whose points are tracked although their prompt gave an empty mask."""


def choose_query_points(
    prompts: Sequence[Prompt],
    sampler: QuerySampler,
    segmenter: Segmenter,
    read_mask: Callable[[int, int], BoolArray | None],
    errors: Mapping[int, AotError],
) -> ChosenPoints:
    """Take an object's query points from its prompts if they have any, else sample its mask on its first prompt frame.

    Args:
        prompts: of all objects.
        sampler: for objects without query points.
        segmenter: that made the masks; advises about empty ones.
        read_mask: (object id, source frame) → (H, W); None: there are no masks on that frame.
        errors: object id → error, of the objects that have failed so far.
    """
    txy: list[Float32Array] = []
    object_ids: list[int] = []
    failed = dict(errors)
    notes = []
    for object_id in sorted({prompt.object_id for prompt in prompts} - set(errors)):
        own = [prompt for prompt in prompts if prompt.object_id == object_id]
        first = min((prompt for prompt in own if prompt.is_visual), key=lambda prompt: prompt.frame, default=None)
        mask = None if first is None else read_mask(object_id, first.frame)
        empty = "" if first is None or mask is None or mask.any() else _empty_mask(first, segmenter, mask.shape[0])
        points = np.asarray([query for prompt in own for query in prompt.query_points], dtype=np.float32)
        if len(points) and empty:
            notes.append(f"{empty}; its query points are tracked")
        elif not len(points):
            try:
                points = _sample(first, mask, empty, sampler)
            except SegmentationError as error:
                failed[object_id] = error
                continue
        txy.append(points)
        object_ids += [object_id] * len(points)
    queries = QueryPoints(np.concatenate(txy), np.asarray(object_ids, dtype=np.int32)) if txy else None
    return ChosenPoints(queries, failed, tuple(notes))


def _sample(prompt: Prompt | None, mask: BoolArray | None, empty: str, sampler: QuerySampler) -> Float32Array:
    """(N, 3) points inside the mask that a prompt gave; `empty` describes it if it is empty."""
    if prompt is None or mask is None:
        raise RuntimeError(f"the segmenter returned no masks on the frame of the prompt {prompt}")
    if empty:
        raise SegmentationError(f"{empty}, {_IN_THE_MANIFEST}")
    xy = sampler.sample(mask)
    if not len(xy):
        advice = f"{sampler.points_advice}, " if isinstance(sampler, AdvisesOnPoints) else ""
        raise SegmentationError(
            f"object {prompt.object_id}: no query point inside its mask of {int(mask.sum())} px on frame "
            f"{prompt.frame}; {advice}{_IN_THE_MANIFEST if advice else _IN_THE_MANIFEST.removeprefix('or ')}"
        )
    return np.column_stack([np.full(len(xy), prompt.frame, dtype=np.float32), xy])


def _empty_mask(prompt: Prompt, segmenter: Segmenter, height: int) -> str:
    return (
        f"object {prompt.object_id}: its prompt on frame {prompt.frame} gave an empty mask; "
        f"{mask_advice(segmenter, prompt, height)}"
    )
