"""Check the prompts of a clip against its video, and read their masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from aot.errors import PromptError
from aot.images.masks import decode_rle, read_indices
from aot.types import BoolArray, MaskFile, Prompt, RleMask


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


def read_mask(file: MaskFile | RleMask) -> BoolArray:
    """Read a mask image or decode run lengths to (H, W) bool.

    Raises:
        PromptError: the file is not a readable mask image, or the run lengths do not match the mask's size.
    """
    try:
        if isinstance(file, RleMask):
            return decode_rle(file)
        values = read_indices(file.path)
    except ValueError as exc:
        raise PromptError(f"mask {exc}") from exc
    return np.asarray(values != 0 if file.value is None else values == file.value, dtype=np.bool_)


def _fit(prompt: Prompt, width: int, height: int, available: set[int], num_source_frames: int) -> Prompt:
    label = f"object {prompt.object_id}, frame {prompt.frame}"
    _check_frames(prompt, label, available, num_source_frames)
    _check_positions(prompt, label, width, height)
    if not isinstance(prompt.mask, MaskFile | RleMask):
        return prompt
    mask = read_mask(prompt.mask)
    named = f"mask {prompt.mask.path}" if isinstance(prompt.mask, MaskFile) else "the mask"
    if mask.shape != (height, width):
        raise PromptError(f"{label}: {named} is {mask.shape[1]}x{mask.shape[0]} px, expected {width}x{height}")
    if not mask.any():
        raise PromptError(f"{label}: {named} is empty; expected non-zero pixels")
    return replace(prompt, mask=mask)


def _check_frames(prompt: Prompt, label: str, available: set[int], num_source_frames: int) -> None:
    frames = [prompt.frame] if prompt.is_visual else []
    for frame in [*frames, *(int(query[0]) for query in prompt.query_points)]:
        if frame >= num_source_frames:
            raise PromptError(
                f"{label}: frame {frame} is beyond the end of the video; expected 0 to {num_source_frames - 1}"
            )
        if frame not in available:
            raise PromptError(
                f"{label}: frame {frame} is outside the time range; expected {min(available)} to {max(available)}: "
                f"prompt one of these frames, or change dataset.start_seconds and dataset.end_seconds"
            )


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
