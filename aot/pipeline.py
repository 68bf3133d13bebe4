"""Processing one clip, from its video to its result file: `process_clip` runs every stage in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

import numpy as np

from aot.checkpoints import device_name_of, precisions_of, weights_of
from aot.decoding.base import Decoder, FrameSource
from aot.detection.base import Detector, ReleasesModel
from aot.detection.none import NoDetector
from aot.errors import AotError, OutOfMemory, error_context
from aot.flow.follow import FollowedTracks, Follower
from aot.flow.options import PointOptions
from aot.flow.passes import track_in_passes
from aot.memory_plan import FULL_BUFFERS, NO_BUFFERS, Buffers, needed_bytes, planned_points, uses_main_memory
from aot.paths import ClipPaths
from aot.preparation import PREPARATION_STAGES, PreparedClip, all_failed, look_up_words, prepare_clip
from aot.query_points.base import QuerySampler
from aot.query_points.choose import choose_query_points
from aot.retry import Attempt, Rung
from aot.segmentation.base import Segmenter
from aot.self_checks import SelfCheck, check_objects, in_mask_share, return_errors
from aot.stages import StageTimer
from aot.system.devices import describe_devices
from aot.system.memory import available_host_bytes, peak_memory_bytes, reset_peak_memory
from aot.tracking.base import Tracker, tracking_on_clip
from aot.types import BoolArray, Clip, Float64Array, Int64Array, Prompt, QueryPoints
from aot.writing.base import ClipWriter
from aot.writing.hdf5 import new_clip_file

OnProgress = Callable[[str, float], None]
"""Called with (stage, completed fraction of the stage)."""


@dataclass(frozen=True)
class Parts:
    """The decoder, models and samplers, built once per worker and used for every clip."""

    decoder: Decoder
    segmenter: Segmenter
    query_sampler: QuerySampler
    tracker: Tracker
    detector: Detector = field(default_factory=NoDetector)


@dataclass(frozen=True)
class Settings:
    """The settings of one attempt at a clip."""

    frame_interval: int
    """The interval to use; the ladder may raise it above the one requested."""
    frame_interval_requested: int
    provenance: dict[str, Any] = field(default_factory=dict)
    """Root attributes that are known before the clip is opened: config_yaml, config_hash, versions."""
    rung: int = 1
    """Rung of the ladder, from 1."""
    lean: bool = False
    """Whether the tracker uses its lean memory plan."""
    attempts: tuple[Attempt, ...] = ()
    """The attempts before this one."""
    available_bytes: Callable[[], int] | None = None
    """Memory on the tracker's device; a clip predicted to need more is refused before any work. None: no prediction."""
    return_check: bool = False
    """Whether to track every point back to its query too, and record the distance."""
    points: PointOptions = field(default_factory=PointOptions)
    """Where tracks end, and whether points are added."""
    sample_fps: float | None = None
    """Frames per second to which the interval applies; None: all frames."""

    @classmethod
    def on(cls, rung: Rung, **others: Any) -> Settings:
        """The settings of an attempt on a rung of the ladder; `others` are the remaining fields."""
        return cls(frame_interval=rung.frame_interval, rung=rung.number, lean=rung.lean, **others)


@dataclass(frozen=True)
class ReadingAhead:
    """What was read of a clip before its turn, and what may be read of the next one."""

    take: Callable[[], PreparedClip | None]
    """Wait for what was read of this clip while the one before it was computed; None: nothing."""
    start: Callable[[int], None]
    """Called when the clip is ready to be computed, with the main memory in bytes that the next one may take."""


NO_READING_AHEAD = ReadingAhead(take=lambda: None, start=lambda num_bytes: None)


@dataclass(frozen=True)
class ClipSummary:
    """What tables and ledgers record of a finished clip."""

    clip_id: str
    num_objects: int
    num_points: int
    num_frames: int
    num_source_frames: int
    frame_interval: int
    visible_share: float
    """Fraction of (frame, point) pairs that the tracker reports as visible."""
    in_mask_share: float
    """Fraction of the visible ones that lie in their object's mask; NaN as in `aot.self_checks.in_mask_share`."""
    checks: dict[int, dict[str, float | None]]
    """Object id → its self-checks; see `aot.self_checks`."""
    seconds: dict[str, float]
    """Per stage, of the worker's own time: waiting for frames is `wait_for_frames`, not part of the stages that read
    them."""
    peak_memory_bytes: int
    object_errors: dict[int, str]
    """Object id → error, of the objects that failed."""
    decoder: str
    """Name of the decoder that read the clip: "decord", "pyav" or "opencv"."""
    decoder_fallback: str = ""
    """Why the configured decoder did not take the clip; empty if it did."""
    rung: int = 1
    """Rung of the ladder; above 1, the clip ran out of memory before."""
    num_attempts: int = 1
    notes: tuple[str, ...] = ()
    """What was left out or differs from what was asked for, although nothing failed."""
    peak_device_bytes: dict[str, int] = field(default_factory=dict)
    """Per stage: the maximum on any GPU that the process uses; empty if it uses none."""
    width: int = 0
    """Of the source, in px."""
    height: int = 0
    fps: float = 0.0
    object_names: tuple[str, ...] = ()
    """Of all objects, empty where none was given."""


@dataclass(frozen=True)
class _Outcome:
    """What the stages of one clip have produced."""

    prepared: PreparedClip
    """Its source is still open."""
    mask_index: Int64Array
    """(Tm,) source frames with masks."""
    object_errors: Mapping[int, AotError]
    """Object id → error, of the objects that failed in any stage."""
    followed: FollowedTracks
    checks: Mapping[int, SelfCheck]
    """By object id."""
    notes: tuple[str, ...]
    """About the query points."""
    words: dict[str, str]
    """Attributes about objects that were found by words; empty for a clip without words."""


def process_clip(
    clip: Clip,
    parts: Parts,
    settings: Settings,
    paths: ClipPaths,
    on_progress: OnProgress = lambda stage, fraction: None,
    ahead: ReadingAhead = NO_READING_AHEAD,
) -> ClipSummary:
    """Segment and track one clip and write its result file, which gets its final name only when it is complete.

    Raises:
        AotError: with clip_id, stage and frame_interval recorded; also if every object of the clip failed.
    """
    timer = StageTimer()
    reset_peak_memory()
    with error_context(clip_id=clip.clip_id, frame_interval=settings.frame_interval):
        prepared = _prepared(clip, parts, settings, ahead, timer)
        frames = prepared.frames
        with frames:
            clip, prepared, words = _with_words_found(clip, prepared, parts, settings, timer, on_progress)
            prompts = prepared.prompts
            with timer.stage("predict"):
                buffers = _plan_memory(prepared, parts, settings)
            frames.keep_decoded(buffers.frame_bytes)
            ahead.start(buffers.ahead_bytes)
            mask_index = _frames_with_masks(frames, prompts, parts.segmenter)
            new_file = new_clip_file(
                paths.result,
                clip,
                index=frames.index,
                time=frames.time,
                mask_index=mask_index,
                height=frames.height,
                width=frames.width,
                kept_mask_bytes=buffers.mask_bytes,
            )
            with timer.closed_in("write", new_file) as writer:
                with timer.stage("segment", frames):
                    errors = prepared.errors | _segment(frames, prompts, parts.segmenter, writer, timer, on_progress)
                with timer.stage("query_points"):
                    queries, errors, notes = _choose_query_points(clip, prepared, parts, writer, errors, timer)
                followed, returned = _track(clip, prepared, parts, settings, writer, queries, timer, on_progress)
                with timer.stage("write"):
                    writer.write_tracks(
                        followed.tracks, followed.queries, followed.in_mask, followed.lifetimes, followed.coverage
                    )
                rows = np.searchsorted(frames.index, mask_index)
                own = followed.queries.object_id
                checks = check_objects(
                    followed.tracks,
                    own,
                    followed.in_mask,
                    rows,
                    followed.stability,
                    returned,
                    followed.lifetimes.drifted(frames.index),
                    followed.added,
                    followed.mean_coverage(clip.object_ids),
                )
                outcome = _Outcome(prepared, mask_index, errors, followed, checks, notes, words)
                summary = _summarize(clip, settings, outcome, timer)
                writer.write_provenance(_attributes(clip, parts, settings, outcome, summary), summary.object_errors)
            # The file cannot record how long it took to complete it.
            return replace(summary, seconds=dict(timer.seconds))


def _prepared(clip: Clip, parts: Parts, settings: Settings, ahead: ReadingAhead, timer: StageTimer) -> PreparedClip:
    """The clip as it was read ahead, or as it is read now; its stages take no time of the worker if it was ahead."""
    with timer.stage("wait_for_frames"):
        prepared = ahead.take()
    if prepared is None:
        return prepare_clip(clip, parts.decoder, settings.frame_interval, timer, settings.sample_fps)
    for stage in PREPARATION_STAGES:
        timer.skip(stage)
    return prepared


def _with_words_found(
    clip: Clip, prepared: PreparedClip, parts: Parts, settings: Settings, timer: StageTimer, on_progress: OnProgress
) -> tuple[Clip, PreparedClip, dict[str, str]]:
    """See `look_up_words`; a clip without words stays as it is."""
    if not any(prompt.words for prompt in prepared.prompts):
        return clip, prepared, {}
    on_progress("detect", 0.0)
    with timer.stage("detect", prepared.frames):
        found = look_up_words(clip, prepared, parts.detector)
        # Memory ran out before, and the detector is not needed again for this clip.
        if settings.lean and isinstance(parts.detector, ReleasesModel):
            parts.detector.release()
        return found


def _plan_memory(prepared: PreparedClip, parts: Parts, settings: Settings) -> Buffers:
    """The memory that buffers may use.

    Raises:
        OutOfMemory: the clip is predicted not to fit, before minutes are spent on segmentation.
    """
    if settings.available_bytes is None:
        return NO_BUFFERS if settings.lean else FULL_BUFFERS
    frames, prompts = prepared.frames, prepared.prompts
    object_ids = {prompt.object_id for prompt in prompts}
    frame_size = (frames.height, frames.width)
    num_points = planned_points(prompts, parts.query_sampler, settings.points, frame_size)
    needed = needed_bytes(
        parts.tracker,
        num_frames=len(frames.index),
        num_points=num_points,
        points_at_once=settings.points.points_at_once,
        num_objects=len(object_ids),
        width=frames.width,
        height=frames.height,
        lean=settings.lean,
    )
    available = settings.available_bytes()
    if needed > available:
        raise OutOfMemory(
            f"not tried: tracking {num_points} points through {len(frames.index)} frames of "
            f"{frames.width}x{frames.height} px is predicted to need {needed / 1e9:.2f} GB, but "
            f"{available / 1e9:.2f} GB are available; use a larger frame_interval, fewer points, or more memory"
        )
    if settings.lean:
        return NO_BUFFERS
    return Buffers.within(available - needed if uses_main_memory(parts.tracker) else available_host_bytes())


def _frames_with_masks(frames: FrameSource, prompts: list[Prompt], segmenter: Segmenter) -> Int64Array:
    visual = [prompt.frame for prompt in prompts if prompt.is_visual]
    if not visual:
        return np.zeros(0, dtype=np.int64)
    return frames.index if segmenter.propagate else np.unique(np.asarray(visual, dtype=np.int64))


def _segment(
    frames: FrameSource,
    prompts: list[Prompt],
    segmenter: Segmenter,
    writer: ClipWriter,
    timer: StageTimer,
    on_progress: OnProgress,
) -> dict[int, AotError]:
    """Write the masks of every object that has a visual prompt; returns the errors of objects that failed."""
    visual = [prompt for prompt in prompts if prompt.is_visual]
    errors: dict[int, AotError] = {}
    if not visual:
        return errors
    num_masks = len(_frames_with_masks(frames, prompts, segmenter)) * len({prompt.object_id for prompt in visual})
    num_written = 0
    for block in segmenter.segment(frames, visual, on_object_error=errors.__setitem__):
        with timer.stage("write"):
            writer.write_masks(block)
        num_written += block.score.size
        on_progress("segment", num_written / num_masks)
    return errors


def _choose_query_points(
    clip: Clip,
    prepared: PreparedClip,
    parts: Parts,
    writer: ClipWriter,
    errors: Mapping[int, AotError],
    timer: StageTimer,
) -> tuple[QueryPoints, dict[int, AotError], tuple[str, ...]]:
    """The query points, the errors of all objects that have failed so far, and notes."""
    frames = prepared.frames

    def read_mask(object_id: int, frame: int) -> BoolArray | None:
        with timer.stage("write"):  # the last masks may still have to be written
            masks = writer.masks(frame)
        return None if masks is None else masks[clip.object_ids.index(object_id)].in_frame(frames.height, frames.width)

    chosen = choose_query_points(prepared.prompts, parts.query_sampler, parts.segmenter, read_mask, errors)
    if chosen.queries is None:
        raise all_failed(chosen.errors)
    return chosen.queries, chosen.errors, chosen.notes


def _track(
    clip: Clip,
    prepared: PreparedClip,
    parts: Parts,
    settings: Settings,
    writer: ClipWriter,
    queries: QueryPoints,
    timer: StageTimer,
    on_progress: OnProgress,
) -> tuple[FollowedTracks, Float64Array | None]:
    """Track the points, and add more if that is asked for; also (N,) the errors of tracking back, if they are."""
    frames = prepared.frames
    follower = Follower(
        index=frames.index,
        frame_size=(frames.height, frames.width),
        object_ids=clip.object_ids,
        masks_of=writer.masks,
        sampler=parts.query_sampler,
        options=settings.points,
        fixed_ids=frozenset(prompt.object_id for prompt in prepared.prompts if prompt.query_points),
    )

    on_progress("track", 0.0)
    num_points = follower.max_points(queries)
    num_at_once = min(num_points, settings.points.points_at_once or num_points)
    with ExitStack() as tracking:
        with timer.stage("track", frames):
            track_together = tracking.enter_context(
                tracking_on_clip(parts.tracker, frames, num_points=num_at_once, lean=settings.lean)
            )
            track = partial(track_in_passes, track_together, points_at_once=settings.points.points_at_once)
            tracks = track(queries)
        with timer.stage("write"):
            followed = follower.measure(queries, tracks)
        if settings.points.reseed:
            with timer.stage("reseed", frames):
                followed = follower.reseed(followed, track)
        if not settings.return_check:
            return followed, None
        with timer.stage("return_check", frames):
            return followed, return_errors(track, frames.index, followed.queries, followed.tracks)


def _summarize(clip: Clip, settings: Settings, outcome: _Outcome, timer: StageTimer) -> ClipSummary:
    frames = outcome.prepared.frames
    visible, in_mask = outcome.followed.tracks.visible, outcome.followed.in_mask
    return ClipSummary(
        clip_id=clip.clip_id,
        num_objects=len(clip.object_ids),
        num_points=len(outcome.followed.queries),
        num_frames=len(frames.index),
        num_source_frames=frames.num_source_frames,
        frame_interval=settings.frame_interval,
        visible_share=float(visible.mean()),
        in_mask_share=in_mask_share(visible, in_mask, np.searchsorted(frames.index, outcome.mask_index)),
        checks={object_id: check.as_json() for object_id, check in outcome.checks.items()},
        seconds=dict(timer.seconds),
        peak_memory_bytes=peak_memory_bytes(),
        peak_device_bytes=dict(timer.peak_device_bytes),
        object_errors={object_id: str(error) for object_id, error in sorted(outcome.object_errors.items())},
        decoder=frames.decoder,
        decoder_fallback=frames.decoder_fallback,
        rung=settings.rung,
        num_attempts=len(settings.attempts) + 1,
        notes=(*outcome.prepared.notes, *outcome.notes),
        width=frames.width,
        height=frames.height,
        fps=frames.fps,
        object_names=clip.object_names,
    )


def _sampling(settings: Settings, prepared: PreparedClip) -> dict[str, Any]:
    """The attributes of a result of which frames were chosen by time."""
    if settings.sample_fps is None:
        return {}
    return {"sample_fps": settings.sample_fps, "num_sampled_frames": prepared.num_sampled}


def _attributes(
    clip: Clip, parts: Parts, settings: Settings, outcome: _Outcome, summary: ClipSummary
) -> dict[str, Any]:
    """The root attributes of the result file."""
    frames = outcome.prepared.frames
    attempt = Attempt(Rung(settings.rung, settings.frame_interval, settings.lean))
    models: dict[str, object] = {"segmenter": parts.segmenter, "tracker": parts.tracker}
    models |= {"detector": parts.detector} if outcome.words else {}
    weights = [{"part": role} | asdict(file) for role, part in models.items() for file in weights_of(part)]
    return {
        **settings.provenance,
        "clip_id": clip.clip_id,
        "source": str(clip.source.resolve()),
        "source_sha256": outcome.prepared.source_sha256,
        "width": frames.width,
        "height": frames.height,
        "pixel_aspect_ratio": f"{frames.pixel_aspect.numerator}:{frames.pixel_aspect.denominator}",
        "fps": frames.fps,
        "num_source_frames": frames.num_source_frames,
        **({"frame_pattern": clip.pattern} if clip.pattern else {}),
        **({"stream": frames.stream} if frames.stream is not None else {}),
        **outcome.words,
        "decoder": frames.decoder,
        "decoder_version": frames.decoder_version,
        "decoder_fallback": frames.decoder_fallback,
        "source_range": json.dumps(outcome.prepared.source_range),
        "frame_interval_requested": settings.frame_interval_requested,
        "frame_interval": settings.frame_interval,
        **_sampling(settings, outcome.prepared),
        "device": describe_devices({role: device_name_of(part) for role, part in models.items()}),
        "precision": json.dumps(precisions_of(models)),
        "weights": json.dumps(weights),
        "attempts": json.dumps([each.as_json() for each in (*settings.attempts, attempt)]),
        "seconds": json.dumps({stage: round(value, 4) for stage, value in summary.seconds.items()}),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "peak_device_bytes": json.dumps(summary.peak_device_bytes),
        "checks": json.dumps(summary.checks),
        "notes": json.dumps(summary.notes),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
