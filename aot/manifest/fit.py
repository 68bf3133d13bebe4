"""Check the prompts of a clip against its video, and read their masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from aot.errors import PromptError
from aot.images.mask_images import read_object
from aot.images.masks import decode_rle
from aot.system.text import first_names
from aot.types import BoolArray, MaskFile, Prompt, RleMask

# An object that fills the frame up to its edges is rare; the mask of a background, or of everything, is more likely.
_NEARLY_ALL = 0.95


def check_prompts(
    prompts: Iterable[Prompt], *, width: int, height: int, frames: Sequence[int], num_source_frames: int
) -> tuple[list[Prompt], dict[int, PromptError]]:
    """Check prompts against their video.

    Args:
        prompts: prompts of one clip.
        width, height: size of the video, px.
        frames: source frames inside the clip's time range.
        num_source_frames: number of frames of the video.
    Returns:
        The prompts of the objects without errors, with their masks as (H, W) bool; and the first error of every other
        object, by object id.
    """
    available = set(frames)
    fitting: list[Prompt] = []
    errors: dict[int, PromptError] = {}
    for prompt in prompts:
        try:
            fitting.append(_fit(prompt, width, height, available, num_source_frames))
        except PromptError as error:
            errors.setdefault(prompt.object_id, error)
    return [prompt for prompt in fitting if prompt.object_id not in errors], errors


def without_prompts_outside_range(
    prompts: Iterable[Prompt], *, frames: Sequence[int], num_source_frames: int
) -> tuple[list[Prompt], list[str]]:
    """Leave out corrections and query points outside the clip's time range, as in a run over its first seconds.

    An object's first prompt stays, and so do query points of which none is inside: without them the object fails in
    `check_prompts`. So do frames beyond the end of the video, which are mistakes.

    Args:
        prompts: prompts of one clip.
        frames: source frames inside the clip's time range.
        num_source_frames: number of frames of the video.
    Returns:
        The other prompts, and what was left out, as messages.
    """
    prompts = list(prompts)
    # Frames beyond the end count as inside: `check_prompts` refuses them.
    outside = set(range(num_source_frames)) - set(frames)
    where = f"outside the time range (frames {min(frames)} to {max(frames)})"
    kept: list[Prompt] = []
    notes: list[str] = []
    for object_id in dict.fromkeys(prompt.object_id for prompt in prompts):
        own = [prompt for prompt in prompts if prompt.object_id == object_id]
        inside = _inside_range(own, outside)
        kept += inside
        corrections = [
            p.frame for p in own if p.is_visual and not any(q.is_visual and q.frame == p.frame for q in inside)
        ]
        notes += [
            f"object {object_id}: its correction on frame {frame} is {where} and was left out" for frame in corrections
        ]
        num_queries, num_kept = (sum(len(prompt.query_points) for prompt in some) for some in (own, inside))
        if num_kept < num_queries:
            notes.append(
                f"object {object_id}: {num_queries - num_kept} of its {num_queries} query points are {where} and were "
                f"left out"
            )
    return kept, notes


def _inside_range(own: Sequence[Prompt], outside: set[int]) -> list[Prompt]:
    """The prompts of one object without the corrections and query points on the frames `outside` the time range."""
    first = min((prompt.frame for prompt in own if prompt.is_visual), default=None)
    if any(prompt.words for prompt in own):  # which may be found on any of their frames
        first = None
    if {int(query[0]) for prompt in own for query in prompt.query_points} <= outside:
        queries_outside: set[int] = set()
    else:
        queries_outside = outside
    inside = []
    for prompt in own:
        queries = tuple(query for query in prompt.query_points if int(query[0]) not in queries_outside)
        if prompt.words or prompt.frame == first or prompt.frame not in outside:
            inside.append(replace(prompt, query_points=queries))
        elif queries:
            inside.append(replace(prompt, box=None, points=(), labels=(), mask=None, found=None, query_points=queries))
    return [prompt for prompt in inside if prompt.is_visual or prompt.words or prompt.query_points]


def read_mask(file: MaskFile | RleMask) -> BoolArray:
    """Read a mask image or decode run lengths to (H, W) bool.

    Raises:
        PromptError: the file is not a readable mask image, or the run lengths do not match the mask's size.
    """
    try:
        return decode_rle(file) if isinstance(file, RleMask) else read_object(file)
    except ValueError as exc:
        raise PromptError(f"mask {exc}") from exc


def covering_masks(prompts: Iterable[Prompt]) -> list[str]:
    """Name the mask prompts that cover nearly the whole frame or its whole edge, as inverted masks do.

    Masks that were not read are skipped.

    Args:
        prompts: of one clip.
    """
    return [
        f"object {prompt.object_id}: its mask covers {covered} of frame {prompt.frame}; check that it marks the object "
        f"and not the background"
        for prompt in prompts
        if isinstance(prompt.mask, np.ndarray) and (covered := _covered(prompt.mask))
    ]


def _covered(mask: BoolArray) -> str:
    """How much of the frame a mask covers; empty if it may be that of an object."""
    fraction = mask.mean()
    if fraction >= _NEARLY_ALL:
        return f"{fraction:.1%}"
    has_whole_edge = mask[[0, -1]].all() and mask[:, [0, -1]].all()
    return f"{fraction:.1%} and the whole edge" if has_whole_edge else ""


def _fit(prompt: Prompt, width: int, height: int, available: set[int], num_source_frames: int) -> Prompt:
    label = f"object {prompt.object_id}, frame {prompt.frame}"
    _check_frames(prompt, available, num_source_frames)
    _check_positions(prompt, label, width, height)
    if not isinstance(prompt.mask, MaskFile | RleMask):
        return prompt
    mask = read_mask(prompt.mask)
    named = f"mask {prompt.mask.path}" if isinstance(prompt.mask, MaskFile) else "the mask"
    if mask.shape != (height, width):
        raise PromptError(f"{label}: {named} is {mask.shape[1]}x{mask.shape[0]} px, expected {width}x{height}")
    if not mask.any():
        raise PromptError(f"{label}: {named} is empty; expected pixels other than 0")
    return replace(prompt, mask=mask)


def _check_frames(prompt: Prompt, available: set[int], num_source_frames: int) -> None:
    words = prompt.words
    if words is not None and not available & set(words.frames):
        raise PromptError(
            f'object {prompt.object_id}: "{words.text}" is to be found on {_frames_text(words.frames)}, which the clip '
            f"does not have; expected frames of {min(available)} to {max(available)}"
        )
    prompted = [("prompt", prompt.frame)] if prompt.is_visual else []
    for what, frame in [*prompted, *(("query point", int(query[0])) for query in prompt.query_points)]:
        label = f"object {prompt.object_id}: its {what} on frame {frame}"
        if frame >= num_source_frames:
            raise PromptError(f"{label} is beyond the end of the video; expected 0 to {num_source_frames - 1}")
        if frame not in available:
            raise PromptError(
                f"{label} is outside the time range; expected {min(available)} to {max(available)}: "
                f"prompt one of these frames, or change dataset.start_seconds and dataset.end_seconds"
            )


def _frames_text(frames: Sequence[int]) -> str:
    return f"frame{'' if len(frames) == 1 else 's'} {first_names(frames)}"


def _check_positions(prompt: Prompt, label: str, width: int, height: int) -> None:
    # A box may end at the outer edge of the last pixel: annotators and detectors write x1 = width.
    corners = [] if prompt.box is None else [("box corner", *prompt.box[:2], 0.5), ("box corner", *prompt.box[2:], 0.5)]
    points = [("point", x, y, 0.0) for x, y in prompt.points]
    queries = [("query point", x, y, 0.0) for _, x, y in prompt.query_points]
    for what, x, y, slack in [*corners, *points, *queries]:
        if not (-0.5 <= x <= width - 0.5 + slack and -0.5 <= y <= height - 0.5 + slack):
            raise PromptError(
                f"{label}: the {what} ({x:g}, {y:g}) is outside the frame of {width}x{height} px; expected "
                f"coordinates of the source video, (0, 0) to ({width - 1}, {height - 1})"
            )
