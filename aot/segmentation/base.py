"""The segmenter: prompts in, a stream of masks out. Some also segment a single frame interactively."""

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
    """True: masks on every kept frame; False: on the prompt frames only."""

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        """Yield the masks of every prompted object as they are computed.

        Args:
            frames: the kept frames; every prompt's frame is among them.
            prompts: visual prompts, ordered by object_id, then frame; masks already loaded, (H, W) bool. A later
                prompt of the same object is a correction on that frame.
            on_object_error: called with (object_id, error) for an object that fails while the others continue; no
                masks of that object are yielded afterwards.
        Yields:
            MaskBlocks in any order of frames; each (frame, object) at most once. Their arrays are not changed later,
            because a thread may still be writing them.
        Raises:
            SegmentationError: no object of the clip can be segmented.
            OutOfMemory: memory ran out.
        """
        ...


class FrameSession(Protocol):
    """One encoded frame, on which every further prompt is segmented quickly."""

    def masks(self, prompts: Sequence[Prompt]) -> MaskBlock:
        """The same masks that `Segmenter.segment` gives on this frame when these are a clip's first prompts.

        Args:
            prompts: visual prompts on this frame, one per object, ordered by object_id; masks already loaded.
        Returns:
            One frame with one mask per prompt, in their order; an object that is not found has an empty mask, score 0.
        Raises:
            SegmentationError, OutOfMemory: as in `Segmenter.segment`.
        """
        ...


@runtime_checkable
class InteractiveSegmenter(Protocol):
    """Segments a frame while the user clicks. Optional for a segmenter."""

    def open_frame(self, rgb: UInt8Array) -> FrameSession:
        """Encode a frame, (H, W, 3) RGB."""
        ...


@runtime_checkable
class AdvisesOnMasks(Protocol):
    """A segmenter that knows what helps if a prompt gave an empty mask. Optional for a segmenter."""

    def mask_advice(self, prompt: Prompt, height: int) -> str:
        """What to try, as part of a sentence: "click a point inside the object, or …".

        Args:
            prompt: gave an empty mask.
            height: of the frame, px.
        """
        ...


def mask_advice(segmenter: object, prompt: Prompt, height: int) -> str:
    """What to try if a prompt gave an empty mask with this segmenter; arguments as in `AdvisesOnMasks`."""
    if isinstance(segmenter, AdvisesOnMasks):
        return segmenter.mask_advice(prompt, height)
    return f"{better_prompt(prompt)}, or use another segmenter"


def better_prompt(prompt: Prompt) -> str:
    """How to locate an object more precisely than a prompt does."""
    if prompt.box is None:
        return "draw a box around the object"
    return "draw the box closely around the object" if prompt.points else "click a point inside the object"
