"""The adapter: prompts and frames in, GrabCut's masks out.

    prompt frame       box, points ──> colours absent around the box ──> GrabCut ──> mask
    every other frame  previous mask ──> DIS flow ──> + colours seen so far ──> GrabCut where uncertain ──> mask

All of it runs at a reduced size, in a window around each object; of a clip only the previous frame is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import cv2
import numpy as np
from annotated_types import Ge, Gt, Le

from aot.decoding.base import FrameSource
from aot.errors import AotError, OutOfMemory, SegmentationError
from aot.segmentation.base import FrameSession, OnObjectError, better_prompt
from aot.segmentation.grabcut.colour_model import CERTAIN, histograms, log_odds
from aot.segmentation.grabcut.grid import WorkingFrame, WorkingGrid, WorkingPrompt
from aot.segmentation.grabcut.propagation import (
    Claim,
    ObjectState,
    claim_propagated,
    pack_union,
    resolve_overlaps,
    unpack,
    updated,
)
from aot.segmentation.grabcut.trimap import segment_prompt
from aot.types import BoolArray, Int64Array, MaskBlock, Prompt, UInt8Array


class GrabCutSegmenter:
    """Segments prompted objects with OpenCV only: no weights, no GPU.

    Args:
        propagate: True: masks on all kept frames; False: masks on the prompt frames only.
        working_height: height in px to which taller frames are scaled down for segmentation, ≥ 16; masks are returned
            at source size.
        prompt_iterations: GrabCut iterations on a prompt frame, ≥ 1.
        iterations: GrabCut iterations on every other frame, ≥ 1.
        memory: weight of the newest frame in the running colour histograms, in (0, 1]; 1 keeps one frame only.
    """

    def __init__(
        self,
        propagate: bool = True,
        working_height: Annotated[int, Ge(16)] = 240,
        prompt_iterations: Annotated[int, Ge(1)] = 5,
        iterations: Annotated[int, Ge(1)] = 1,
        memory: Annotated[float, Gt(0), Le(1)] = 0.3,
    ) -> None:
        self.propagate = propagate
        self.working_height = working_height
        self.prompt_iterations = prompt_iterations
        self.iterations = iterations
        self.memory = memory

    def segment(
        self, frames: FrameSource, prompts: Sequence[Prompt], *, on_object_error: OnObjectError
    ) -> Iterator[MaskBlock]:
        """Yield one frame's masks at a time: forwards from the first prompt, then backwards for objects prompted later.

        A mask's score is the mean probability of its pixels given position and colours: 1 for a mask prompt, 0.5 where
        the evidence is neutral, 0 for an empty mask.

        Raises:
            SegmentationError: OpenCV failed.
            OutOfMemory: OpenCV could not allocate memory.
        """
        passes = _ClipPasses(self, frames, prompts, on_object_error)
        try:
            yield from passes.forwards()
            if self.propagate:
                yield from passes.backwards()
        except cv2.error as exc:
            raise _as_aot_error(exc, frames.width, frames.height) from exc

    def mask_advice(self, prompt: Prompt, height: int) -> str:
        """What to try if a prompt gave an empty mask in a frame of this height, px."""
        if height <= self.working_height:
            return f"{better_prompt(prompt)}, or use segmenter=sam2"
        return (
            f"{better_prompt(prompt)}, raise segmenter.working_height={self.working_height} if it is small (the frame "
            f"is {height} px high), or use segmenter=sam2"
        )

    def open_frame(self, rgb: UInt8Array) -> FrameSession:
        """Prepare a frame, (H, W, 3) RGB, for prompts that arrive one by one."""
        height, width = rgb.shape[:2]
        grid = WorkingGrid(width, height, self.working_height)
        return _GrabCutFrame(grid, grid.frame(rgb), self.prompt_iterations)


class _ClipPasses:
    """The forward and the backward pass over one clip: which objects are propagated on which frames.

    Args:
        segmenter: its options.
        frames: the kept frames.
        prompts: ordered by object id, then frame.
        on_object_error: called with (object_id, error) for an object whose prompt gave an empty mask.
    """

    def __init__(
        self,
        segmenter: GrabCutSegmenter,
        frames: FrameSource,
        prompts: Sequence[Prompt],
        on_object_error: OnObjectError,
    ) -> None:
        self.segmenter = segmenter
        self.frames = frames
        self.grid = WorkingGrid(frames.width, frames.height, segmenter.working_height)
        self.on_object_error = on_object_error
        self.prompts_on: dict[int, list[Prompt]] = {}
        for prompt in prompts:
            self.prompts_on.setdefault(prompt.frame, []).append(prompt)
        ids = {prompt.object_id for prompt in prompts}
        self.first = {i: min(p.frame for p in prompts if p.object_id == i) for i in ids}
        self.last = {i: max(p.frame for p in prompts if p.object_id == i) for i in ids}
        if segmenter.propagate:
            self.last = dict.fromkeys(ids, int(frames.index[-1]))
        self.failed: set[int] = set()
        self.late_states: dict[int, ObjectState] = {}
        """States of objects on their first prompt frame, where that is not the first kept frame."""
        self.taken: dict[int, UInt8Array] = {}
        """Per frame that the backward pass will reread: the assigned pixels, packed, at working size."""

    def forwards(self) -> Iterator[MaskBlock]:
        """Propagate every object from its first prompt on."""
        states: dict[int, ObjectState] = {}
        previous: WorkingFrame | None = None
        for number, frame in self._working_frames(self._frames_with_objects()):
            prompts = [prompt for prompt in self.prompts_on.get(number, []) if prompt.object_id not in self.failed]
            prompted = {prompt.object_id for prompt in prompts}
            claims = self._claims(previous, frame, states)
            claims |= _prompt_claims(frame, self.grid, prompts, claims, self.segmenter.prompt_iterations)
            masks = self._without_failures(resolve_overlaps(claims, prompted), prompts)
            states = {
                i: updated(frame, mask, None if i in prompted else states[i], self.segmenter.memory)
                for i, mask in masks.items()
            }
            reported = {i: mask for i, mask in masks.items() if self.segmenter.propagate or i in prompted}
            if reported:
                yield self._block(number, reported, claims)
            self._record_for_backwards(number, masks, states)
            states = {i: state for i, state in states.items() if self.last[i] > number}
            previous = frame

    def _frames_with_objects(self) -> Int64Array:
        """The kept frames on which at least one object is segmented."""
        spans = [(self.first[i], self.last[i]) for i in self.first]
        needed = [frame for frame in self.frames.index if any(first <= frame <= last for first, last in spans)]
        return np.asarray(needed, dtype=np.int64)

    def _record_for_backwards(
        self, number: int, masks: Mapping[int, BoolArray], states: Mapping[int, ObjectState]
    ) -> None:
        """Keep what the backward pass reads: the states of objects that start late, and the assigned pixels."""
        self.late_states |= {i: states[i] for i in masks if self.first[i] == number > self.frames.index[0]}
        if number < max(self.first.values()):
            self.taken[number] = pack_union(masks.values(), self.grid)

    def backwards(self) -> Iterator[MaskBlock]:
        """Propagate the objects that were prompted later back to the first frame."""
        starts = {i: self.first[i] for i in self.late_states if i not in self.failed}
        if not starts:
            return
        states: dict[int, ObjectState] = {}
        previous: WorkingFrame | None = None
        for number, frame in self._working_frames(self.frames.index[self.frames.index <= max(starts.values())][::-1]):
            claims = self._claims(previous, frame, states)
            masks = resolve_overlaps(claims, prompted=set())
            if number in self.taken:
                taken = unpack(self.taken.pop(number), self.grid)
                masks = {i: mask & ~taken for i, mask in masks.items()}
            if masks:
                yield self._block(number, masks, claims)
            states = {i: updated(frame, mask, states[i], self.segmenter.memory) for i, mask in masks.items()}
            states |= {i: self.late_states[i] for i, start in starts.items() if start == number}
            previous = frame

    def _working_frames(self, index: Int64Array) -> Iterator[tuple[int, WorkingFrame]]:
        for block in self.frames.blocks(index):
            for number, rgb in zip(block.index, block.rgb):
                yield int(number), self.grid.frame(rgb)

    def _claims(
        self, previous: WorkingFrame | None, frame: WorkingFrame, states: Mapping[int, ObjectState]
    ) -> dict[int, Claim]:
        if previous is None:
            return {}
        iterations = self.segmenter.iterations
        return {i: claim_propagated(previous, frame, state, iterations) for i, state in states.items()}

    def _without_failures(self, masks: Mapping[int, BoolArray], prompts: Sequence[Prompt]) -> dict[int, BoolArray]:
        """Report the objects whose prompts gave empty masks, and return the masks of the others.

        Background points on a later frame may leave an empty mask: with these the user states that the object is gone.
        """
        failed = {
            prompt.object_id: prompt
            for prompt in prompts
            if not masks[prompt.object_id].any()
            and (prompt.frame == self.first[prompt.object_id] or _is_positive(prompt))
        }
        for i, prompt in failed.items():
            self.failed.add(i)
            self.on_object_error(i, _no_mask(prompt, self.frames, self.segmenter))
        return {i: mask for i, mask in masks.items() if i not in failed}

    def _block(self, number: int, masks: Mapping[int, BoolArray], claims: Mapping[int, Claim]) -> MaskBlock:
        return _as_block(number, self.grid, masks, claims, self.prompts_on.get(number, []))


class _GrabCutFrame:
    """One frame that is segmented prompt by prompt.

    Args:
        grid: between source px and working px.
        frame: at working size.
        iterations: of GrabCut.
    """

    def __init__(self, grid: WorkingGrid, frame: WorkingFrame, iterations: int) -> None:
        self._grid, self._frame, self._iterations = grid, frame, iterations

    def masks(self, prompts: Sequence[Prompt]) -> MaskBlock:
        try:
            claims = _prompt_claims(self._frame, self._grid, prompts, {}, self._iterations)
            masks = resolve_overlaps(claims, prompted=set(claims))
            return _as_block(prompts[0].frame, self._grid, masks, claims, prompts)
        except cv2.error as exc:
            raise _as_aot_error(exc, self._grid.width, self._grid.height) from exc


def _prompt_claims(
    frame: WorkingFrame,
    grid: WorkingGrid,
    prompts: Sequence[Prompt],
    propagated: Mapping[int, Claim],
    iterations: int,
) -> dict[int, Claim]:
    """Claims of the objects prompted on a frame; `propagated` holds those expected there from the previous frame."""
    claims = {}
    for prompt in prompts:
        others = [other for other in prompts if other.object_id != prompt.object_id]
        expected = propagated.get(prompt.object_id)
        claims[prompt.object_id] = _claim_prompt(
            frame, grid.prompt(prompt, others), expected.mask if expected else None, iterations
        )
    return claims


def _claim_prompt(frame: WorkingFrame, prompt: WorkingPrompt, propagated: BoolArray | None, iterations: int) -> Claim:
    if prompt.mask is not None:
        return Claim(prompt.mask, np.where(prompt.mask, CERTAIN, -CERTAIN).astype(np.float32))
    mask = segment_prompt(frame, prompt, propagated, iterations)
    return Claim(mask, log_odds(frame, mask, histograms(frame, mask)))


def _as_block(
    number: int,
    grid: WorkingGrid,
    masks: Mapping[int, BoolArray],
    claims: Mapping[int, Claim],
    prompts: Sequence[Prompt],
) -> MaskBlock:
    """One frame's masks at source size; mask prompts are returned unchanged where they do not overlap."""
    given = {prompt.object_id: prompt.mask for prompt in prompts if isinstance(prompt.mask, np.ndarray)}
    taken = np.zeros((grid.height, grid.width), np.bool_)
    full: dict[int, BoolArray] = {}
    for i, mask in sorted(given.items(), key=lambda item: np.count_nonzero(item[1])):
        full[i] = mask & ~taken
        taken |= mask
    full = {i: full[i] if i in full else grid.enlarge(mask) & ~taken for i, mask in masks.items()}
    return MaskBlock(
        index=np.array([number], np.int64),
        object_id=np.array(list(masks), np.int32),
        masks=np.stack(list(full.values()))[np.newaxis],
        score=np.array([[claims[i].score(mask) for i, mask in masks.items()]], np.float32),
    )


def _is_positive(prompt: Prompt) -> bool:
    """Whether the prompt states that the object is there; background points on their own may erase it."""
    return prompt.box is not None or prompt.mask is not None or any(prompt.labels)


def _no_mask(prompt: Prompt, frames: FrameSource, segmenter: GrabCutSegmenter) -> SegmentationError:
    given = [] if prompt.box is None else [f"box {list(prompt.box)}"]
    if prompt.points:
        given += [f"points {[list(point) for point in prompt.points]}", f"labels {list(prompt.labels)}"]
    return SegmentationError(
        f"object {prompt.object_id}: its prompt on frame {prompt.frame} ({', '.join(given) or 'a mask'}) gave an empty "
        f"mask in the {frames.width}x{frames.height} px frame, expected at least one pixel; "
        f"{segmenter.mask_advice(prompt, frames.height)}"
    )


def _as_aot_error(error: cv2.error, width: int, height: int) -> AotError:
    if error.code == cv2.Error.StsNoMem:
        return OutOfMemory(f"out of memory in OpenCV: {error}; lower segmenter.working_height")
    return SegmentationError(
        f"OpenCV failed on a {width}x{height} px frame: {error}; try another segmenter.working_height, "
        f"and please report it"
    )
