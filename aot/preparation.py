"""What a clip needs before its models run: its source is hashed and opened, and its prompts are checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aot.decoding import open_source
from aot.decoding.base import BLOCK_BYTES, Decoder, FrameSource, kept_frames
from aot.decoding.sampling import sampled_rows
from aot.detection.base import Detector
from aot.detection.words import find_words
from aot.errors import AotError, DecodeError
from aot.images.masks import encode_rle
from aot.manifest.fit import check_prompts, covering_masks, without_prompts_outside_range
from aot.manifest.serialize import prompts_as_json
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
    spaced: Int64Array
    """The kept frames of the interval; the others are those of prompts and query points."""
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
            spaced, num_sampled = _spaced_frames(frames, frame_interval, sample_fps)
            frames.keep(_frames_to_keep(frames, prompts, spaced))
    except BaseException:
        frames.close()
        raise
    return PreparedClip(frames, spaced, source_sha256, source_range, num_sampled, prompts, errors, notes)


def look_up_words(clip: Clip, prepared: PreparedClip, detector: Detector) -> tuple[Clip, PreparedClip, dict[str, str]]:
    """Let a detector find the objects that prompts describe by words, and keep only the frames that are needed then.

    Args:
        clip: with the prompts as they were given.
        prepared: the same clip; its frames include all that may be looked at.
        detector: that finds the words.
    Returns:
        Both with the boxes or masks that were found, and attributes of the result file that describe it.
    Raises:
        PromptError: no object was found, and the clip has no other.
        OutOfMemory: memory ran out.
    """
    with_words = [prompt for prompt in prepared.prompts if prompt.words is not None]
    looked_up = find_words(with_words, prepared.frames, detector)
    errors = prepared.errors | looked_up.errors
    others = [prompt for prompt in prepared.prompts if prompt.words is None]
    prompts = [prompt for prompt in _in_order([*others, *looked_up.prompts]) if prompt.object_id not in errors]
    if not prompts:
        raise all_failed(errors)
    prepared.frames.keep(_frames_to_keep(prepared.frames, prompts, prepared.spaced))
    # As given, with masks as file names; words that could not be looked up stay.
    given = [prompt for prompt in clip.prompts if prompt.words is None or prompt.object_id in prepared.errors]
    recorded = _in_order([*given, *map(_with_run_lengths, looked_up.prompts)])
    attributes = {"prompts": json.dumps(prompts_as_json(clip.prompts)), "words": json.dumps(looked_up.searches)}
    return replace(clip, prompts=tuple(recorded)), replace(prepared, prompts=prompts, errors=errors), attributes


def _in_order(prompts: Iterable[Prompt]) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: (prompt.object_id, prompt.frame))


def _with_run_lengths(prompt: Prompt) -> Prompt:
    return replace(prompt, mask=encode_rle(prompt.mask)) if isinstance(prompt.mask, np.ndarray) else prompt


def decode_first_frames(prepared: PreparedClip) -> None:
    """Decode the frames at which the models will start, as many as fit into a block, and keep them."""
    frames = prepared.frames
    starts = [frame for prompt in prepared.prompts for frame in _marked_frames(prompt, frames)]
    first = int(frames.rows([min(starts)])[0]) if starts else 0
    index = frames.index[first : first + BLOCK_BYTES // (frames.width * frames.height * 3)]
    if len(index):
        frames.keep_decoded(BLOCK_BYTES)
        frames.decode_ahead(index)


def all_failed(errors: Mapping[int, AotError]) -> AotError:
    """The error of a clip whose objects all failed: all messages, with the class of the first object's error."""
    first = errors[min(errors)]
    return type(first)("; ".join(str(errors[object_id]) for object_id in sorted(errors)))


def _marked_frames(prompt: Prompt, frames: FrameSource) -> tuple[int, ...]:
    """The kept frames on which a prompt marks its object, or on which a detector may find it."""
    if prompt.words is not None:
        return tuple(frame for frame in prompt.words.frames if frame in frames.index)
    return (prompt.frame,) if prompt.is_visual else ()


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


def _spaced_frames(frames: FrameSource, frame_interval: int, sample_fps: float | None) -> tuple[Int64Array, int | None]:
    """The source frames of the interval within the clip's time range, and how many of all frames sample_fps chooses."""
    if sample_fps is None:
        return np.intersect1d(kept_frames(frames.num_source_frames, frame_interval), frames.index), None
    sampled = frames.index[sampled_rows(frames.time, sample_fps)]
    return sampled[::frame_interval], len(sampled)


def _frames_to_keep(frames: FrameSource, prompts: Sequence[Prompt], spaced: Int64Array) -> Int64Array:
    """Source frames of the interval, of prompts and of query points, within the clip's time range.

    Args:
        frames: those kept so far.
        prompts: those that fit the clip; of words, all frames that may be looked at.
        spaced: the frames of the interval.
    """
    required = {frame for prompt in prompts for frame in _marked_frames(prompt, frames)}
    required |= {int(query[0]) for prompt in prompts for query in prompt.query_points}
    return np.union1d(spaced, np.intersect1d(np.array(sorted(required), dtype=np.int64), frames.index))
