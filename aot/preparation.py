"""What a clip needs before its models run: its source is hashed and opened, and its prompts are checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aot.decoding import open_source
from aot.decoding.base import BLOCK_BYTES, Decoder, FrameSource, kept_frames
from aot.decoding.sampling import sampled_rows
from aot.errors import AotError, DecodeError
from aot.manifest.fit import check_prompts, covering_masks, without_prompts_outside_range
from aot.stages import StageTimer
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_problem
from aot.types import Clip, Int64Array, Prompt

PREPARATION_STAGES = ("hash", "open", "prompts")


@dataclass(frozen=True)
class PreparedClip:
    """A clip with its source open."""

    frames: FrameSource
    """Restricted to the kept frames; the owner closes it."""
    source_sha256: str
    source_range: tuple[int, int]
    """First and last source frame of the clip's time range."""
    num_sampled: int | None
    """Number of frames that `sample_fps` chooses, of which `frame_interval` counts; None without it."""
    prompts: list[Prompt]
    """Of the objects whose prompts all fit the clip."""
    errors: dict[int, AotError]
    """Object id → error, of the other objects."""
    notes: tuple[str, ...]
    """What was left out, although nothing failed."""


def prepare_clip(
    clip: Clip, decoder: Decoder, frame_interval: int, timer: StageTimer, sample_fps: float | None = None
) -> PreparedClip:
    """Hash and open the source of a clip, check its prompts and choose its frames.

    Args:
        clip: the clip.
        decoder: opens it.
        frame_interval: of the frames that sample_fps chooses, or of all.
        timer: of the stages.
        sample_fps: frames per second, see `aot.decoding.sampling`; None: all frames.
    Raises:
        DecodeError: the source cannot be read; its stage is "hash" or "open".
        AotError: the prompts of every object fail; the stage is "prompts".
    """
    with timer.stage("hash"):
        source_sha256 = _sha256_of(clip)
    with timer.stage("open"):
        frames = open_source(clip, decoder)
    try:
        with timer.stage("prompts"):
            prompts, errors, notes = _usable_prompts(clip, frames)
            source_range = int(frames.index[0]), int(frames.index[-1])
            kept, num_sampled = _frames_to_keep(frames, prompts, frame_interval, sample_fps)
            frames.keep(kept)
    except BaseException:
        frames.close()
        raise
    return PreparedClip(frames, source_sha256, source_range, num_sampled, prompts, errors, notes)


def decode_first_frames(prepared: PreparedClip) -> None:
    """Decode the frames at which the models will start, as many as fit into a block, and keep them."""
    frames = prepared.frames
    starts = [prompt.frame for prompt in prepared.prompts if prompt.is_visual]
    first = int(frames.rows([min(starts)])[0]) if starts else 0
    index = frames.index[first : first + BLOCK_BYTES // (frames.width * frames.height * 3)]
    if len(index):
        frames.keep_decoded(BLOCK_BYTES)
        frames.decode_ahead(index)


def all_failed(errors: Mapping[int, AotError]) -> AotError:
    """The error of a clip whose objects all failed: all messages, with the class of the first object's error."""
    first = errors[min(errors)]
    return type(first)("; ".join(str(errors[object_id]) for object_id in sorted(errors)))


def _sha256_of(clip: Clip) -> str:
    try:
        return sha256_of(clip.source)
    except OSError as exc:
        raise DecodeError(f"{exc.filename or clip.source} cannot be read: {os_problem(exc)}") from exc


def _usable_prompts(clip: Clip, frames: FrameSource) -> tuple[list[Prompt], dict[int, AotError], tuple[str, ...]]:
    """The prompts of the objects whose prompts all fit the clip, the errors of the other objects, and notes."""
    inside, notes = without_prompts_outside_range(
        clip.prompts, frames=frames.index.tolist(), num_source_frames=frames.num_source_frames
    )
    prompts, errors = check_prompts(
        inside,
        width=frames.width,
        height=frames.height,
        frames=frames.index.tolist(),
        num_source_frames=frames.num_source_frames,
    )
    if not prompts:
        raise all_failed(dict(errors))
    return prompts, dict(errors), (*notes, *covering_masks(prompts))


def _frames_to_keep(
    frames: FrameSource, prompts: list[Prompt], frame_interval: int, sample_fps: float | None
) -> tuple[Int64Array, int | None]:
    """Source frames of the interval, of prompts and of query points, within the clip's time range.

    Returns:
        The frames, and how many of all frames sample_fps chooses.
    """
    required = {prompt.frame for prompt in prompts if prompt.is_visual}
    required |= {int(query[0]) for prompt in prompts for query in prompt.query_points}
    if sample_fps is None:
        kept = kept_frames(frames.num_source_frames, frame_interval, sorted(required))
        return np.intersect1d(kept, frames.index), None
    sampled = frames.index[sampled_rows(frames.time, sample_fps)]
    always = np.array(sorted(required), dtype=np.int64)
    return np.union1d(sampled[::frame_interval], np.intersect1d(always, frames.index)), len(sampled)
