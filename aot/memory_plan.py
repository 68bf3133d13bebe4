"""The memory of one clip: what it is predicted to need, and what remains for buffers that only save time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aot.checkpoints import device_name_of
from aot.flow.options import MAX_ADDED_PER_POINT, PointOptions
from aot.flow.passes import HELD_BYTES_PER_POSITION
from aot.query_points.base import LimitedByFrame, QuerySampler
from aot.tracking.base import Tracker
from aot.types import Prompt
from aot.writing.hdf5 import MAX_QUEUED_BYTES

# 430 frames at 480p, 86 at 1080p. Clips of that length are decoded once; of longer ones, their beginning is.
_MAX_FRAME_BYTES = 512 * 2**20
# 20,000 masks of a quarter of a frame at 480p.
_MAX_MASK_BYTES = 256 * 2**20
# More than the default of decoder.max_buffer_gb.
_MAX_AHEAD_BYTES = 2**31


@dataclass(frozen=True)
class Buffers:
    """Main memory that a clip may use to save time; results do not depend on it."""

    frame_bytes: int
    """For frames that the segmenter has decoded, and that the tracker reads again."""
    mask_bytes: int
    """For masks, with which the tracks are compared."""
    ahead_bytes: int
    """For what is read of the next clip."""

    @classmethod
    def within(cls, spare_bytes: int) -> Buffers:
        """Buffers for this much memory, of which three eighths are left: what the segmenter needs is not predicted."""
        return cls(
            frame_bytes=min(_MAX_FRAME_BYTES, spare_bytes // 4),
            mask_bytes=min(_MAX_MASK_BYTES, spare_bytes // 8),
            ahead_bytes=min(_MAX_AHEAD_BYTES, spare_bytes // 4),
        )


NO_BUFFERS = Buffers(0, 0, 0)
FULL_BUFFERS = Buffers(_MAX_FRAME_BYTES, _MAX_MASK_BYTES, _MAX_AHEAD_BYTES)


def uses_main_memory(tracker: Tracker) -> bool:
    """Whether a tracker needs the same memory as the buffers, and not that of a GPU."""
    return not device_name_of(tracker).startswith("cuda")


def planned_points(
    prompts: Sequence[Prompt], sampler: QuerySampler, options: PointOptions, frame_size: tuple[int, int]
) -> int:
    """Points of all objects of a clip, at most, with those that may be added.

    Args:
        prompts: of the clip; query points that they give are the only ones of their object.
        sampler, options: of the points.
        frame_size: height and width, px.
    """
    given = {object_id: 0 for prompt in prompts for object_id in _object_ids(prompt)}
    for prompt in prompts:
        given[prompt.object_id] += len(prompt.query_points)
    sampled = sampler.max_points_on(frame_size) if isinstance(sampler, LimitedByFrame) else sampler.max_points
    if options.reseed:
        sampled += min(options.reseed_max_points, MAX_ADDED_PER_POINT * sampled)
    return sum(own or sampled for own in given.values())


def _object_ids(prompt: Prompt) -> range:
    return range(prompt.object_id, prompt.object_id + prompt.max_objects)


def needed_bytes(
    tracker: Tracker,
    *,
    num_frames: int,
    num_points: int,
    num_objects: int,
    width: int,
    height: int,
    lean: bool,
    points_at_once: int | None = None,
) -> int:
    """Upper bound of the memory on the tracker's device that a clip needs, besides models and buffers that can shrink.

    Args:
        tracker: of the clip.
        num_frames: kept frames of the clip.
        num_points: query points of all objects.
        num_objects: of the clip; in main memory, their masks wait to be written.
        width, height: size of the source in px.
        lean: whether the tracker uses its lean memory plan.
        points_at_once: points that are tracked in one pass, at most; None: all.
    """
    together = min(num_points, points_at_once or num_points)
    needed = tracker.needed_bytes(num_frames=num_frames, num_points=together, width=width, height=height, lean=lean)
    if uses_main_memory(tracker):
        if together < num_points:
            needed += HELD_BYTES_PER_POSITION * num_frames * num_points
        needed += min(MAX_QUEUED_BYTES, num_frames * num_objects * width * height)
    return needed
