"""The memory of one clip: what it is predicted to need, and what remains for buffers that only save time."""

from __future__ import annotations

from dataclasses import dataclass

from aot.checkpoints import device_name_of
from aot.tracking.base import Tracker
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


def needed_bytes(
    tracker: Tracker, *, num_frames: int, num_points: int, num_objects: int, width: int, height: int, lean: bool
) -> int:
    """Upper bound of the memory on the tracker's device that a clip needs, besides models and buffers that can shrink.

    Args:
        tracker: of the clip.
        num_frames: kept frames of the clip.
        num_points: query points of all objects.
        num_objects: of the clip; in main memory, their masks wait to be written.
        width, height: size of the source in px.
        lean: whether the tracker uses its lean memory plan.
    """
    needed = tracker.needed_bytes(num_frames=num_frames, num_points=num_points, width=width, height=height, lean=lean)
    if uses_main_memory(tracker):
        needed += min(MAX_QUEUED_BYTES, num_frames * num_objects * width * height)
    return needed
