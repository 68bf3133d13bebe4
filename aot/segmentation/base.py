"""The segmenter: prompts in, a stream of masks out. Some can also be asked about one frame, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from aot.decoding.base import FrameSource
from aot.errors import AotError
from aot.types import MaskBlock, Prompt, UInt8Array

OnObjectError = Callable[[int, AotError], None]


class Segmenter(Protocol):
    """Finds the prompted objects on the frames of a clip. One instance serves many clips, one after another."""

    propagate: bool
    """Whether masks come on every kept frame; else on the prompt frames alone."""

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        """Yield the masks of every prompted object, as they come.

        Args:
            frames: the kept frames; every prompt's frame is among them.
            prompts: visual prompts, ordered by object_id, then frame; masks already read, (H, W) bool. A later
                prompt of the same object is a correction on that frame.
            on_object_error: called with (object_id, error) for an object that fails while others go on; no masks
                of that object are yielded afterwards.
        Yields:
            MaskBlocks in any order of frames; each (frame, object) at most once.
        Raises:
            SegmentationError: the clip as a whole cannot be segmented.
            OutOfMemory: memory ran out.
        """
        ...


class FrameSession(Protocol):
    """One frame that was made ready once, so that every further prompt on it is answered quickly."""

    def masks(self, prompts: Sequence[Prompt]) -> MaskBlock:
        """The masks that a clip's run would begin with, were these its first prompts.

        Args:
            prompts: visual prompts on this frame, one an object, ordered by object_id; masks already read.
        Returns:
            One frame with a mask for each prompt, in their order; what a prompt does not find is empty, its score 0.
        Raises:
            SegmentationError, OutOfMemory: as `Segmenter.segment` does.
        """
        ...


@runtime_checkable
class InteractiveSegmenter(Protocol):
    """Answers while somebody clicks. A segmenter need not be one."""

    def open_frame(self, rgb: UInt8Array) -> FrameSession:
        """Take in a frame, (H, W, 3) RGB."""
        ...
