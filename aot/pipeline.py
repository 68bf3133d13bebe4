"""One clip from its video to its file: every stage on one screen."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from aot.checkpoints import device_name_of, weights_of
from aot.decoding import open_source
from aot.decoding.base import FrameSource, kept_frames
from aot.drawing.style import OverlayStyle
from aot.errors import AotError, OutOfMemory, SegmentationError, error_context
from aot.manifest.fit import check_prompts
from aot.paths import ClipPaths
from aot.query_points.base import QuerySampler
from aot.retry import Attempt, Rung
from aot.segmentation.base import Segmenter
from aot.self_checks import MaskStability, SelfCheck, check_objects, return_errors
from aot.system.devices import describe_devices
from aot.tracking.base import Tracker
from aot.types import BoolArray, Clip, Prompt, QueryPoints, Tracks
from aot.writing.base import ClipWriter
from aot.writing.hdf5 import new_clip_file
from aot.writing.reader import MaskReader, load

OnProgress = Callable[[str, float], None]
"""Called with (stage, share of the stage that is done)."""


@dataclass(frozen=True)
class Parts:
    """The parts that do the work, built once and used for every clip."""

    segmenter: Segmenter
    query_sampler: QuerySampler
    tracker: Tracker


@dataclass(frozen=True)
class Settings:
    """What one attempt at a clip is told."""

    frame_interval: int
    """The one used; the ladder may raise it above the one requested."""
    frame_interval_requested: int
    provenance: dict[str, Any] = field(default_factory=dict)
    """Attributes known before the clip is opened: config_yaml, config_hash, versions, source_sha256."""
    rung: int = 1
    """Of the ladder."""
    lean: bool = False
    """The tracker's lean memory plan."""
    attempts: tuple[Attempt, ...] = ()
    """Those before this one."""
    available_bytes: Callable[[], int] | None = None
    """Memory that tracking may take; a clip that needs more is refused before any work. None: it is tried."""
    return_check: bool = False
    """Track every point back to its query too, to tell how far off it comes out."""

    @classmethod
    def on(cls, rung: Rung, **others: Any) -> Settings:
        """The settings of an attempt on a rung of the ladder."""
        return cls(frame_interval=rung.frame_interval, rung=rung.number, lean=rung.lean, **others)


@dataclass(frozen=True)
class ClipSummary:
    """One clip's line in the table."""

    clip_id: str
    num_objects: int
    num_points: int
    num_frames: int
    num_source_frames: int
    frame_interval: int
    visible_share: float
    """Share of (frame, point) pairs that the tracker calls visible."""
    in_mask_share: float
    """Share of the visible ones that lie in their object's mask, where masks exist; NaN without any."""
    checks: dict[int, dict[str, float | None]]
    """Per object id, what aot.self_checks tells of it."""
    seconds: dict[str, float]
    """Per stage; `decode` is counted apart from the stages that ask for frames."""
    peak_memory_bytes: int
    object_errors: dict[int, str]
    rung: int = 1
    """Of the ladder; above 1 the clip ran out of memory before."""
    num_attempts: int = 1


def process_clip(
    clip: Clip, parts: Parts, settings: Settings, paths: ClipPaths, on_progress: OnProgress = lambda stage, share: None
) -> ClipSummary:
    """Segment and track one clip and write its file; nothing has its final name before it is whole.

    Raises:
        AotError: with clip_id, stage and frame_interval noted; a clip all of whose objects failed raises too.
    """
    watch = StageTimer()
    with error_context(clip_id=clip.clip_id, frame_interval=settings.frame_interval):
        with watch.stage("open"):
            frames = open_source(clip)
        with frames:
            with watch.stage("prompts"):
                prompts, errors = _usable_prompts(clip, frames)
                source_range = [int(frames.index[0]), int(frames.index[-1])]
                frames.keep(_rows_to_keep(frames, prompts, settings.frame_interval))
            with watch.stage("predict"):
                _check_room(frames, prompts, parts, settings)
            mask_index = _frames_with_masks(frames, prompts, parts.segmenter)
            with new_clip_file(
                paths.result,
                clip,
                index=frames.index,
                time=frames.time,
                mask_index=mask_index,
                height=frames.height,
                width=frames.width,
            ) as writer:
                with watch.stage("segment", frames):
                    _segment(frames, prompts, parts.segmenter, writer, errors, on_progress)
                with watch.stage("query_points"):
                    queries = _choose_query_points(prompts, parts.query_sampler, writer, errors, clip)
                on_progress("track", 0.0)
                with watch.stage("track", frames):
                    tracks = parts.tracker.track(frames, queries, lean=settings.lean)
                returned = None
                if settings.return_check:
                    with watch.stage("return_check", frames):
                        returned = return_errors(
                            lambda back: parts.tracker.track(frames, back, lean=settings.lean),
                            frames.index,
                            queries,
                            tracks,
                        )
                with watch.stage("write"):
                    in_mask, stability = _inside_masks(tracks, queries, clip, frames, writer)
                    writer.write_tracks(tracks, queries, in_mask)
                checks = check_objects(tracks, queries.object_id, in_mask, stability, returned)
                summary = _summarize(
                    clip, frames, queries, tracks, in_mask, len(mask_index) > 0, checks, settings, watch, errors
                )
                writer.write_provenance(
                    _attributes(clip, frames, source_range, parts, settings, summary), summary.object_errors
                )
    return summary


def draw_clip(clip: Clip, paths: ClipPaths, style: OverlayStyle | None = None) -> None:
    """Draw the overlay video of a clip whose file is whole.

    Raises:
        AotError: the video cannot be read again, or the overlay cannot be written; the clip's file is untouched.
    """
    from aot.drawing.overlay import write_overlay  # brings OpenCV and FFmpeg, which the command line does without

    with error_context(clip_id=clip.clip_id, stage="overlay"), open_source(clip) as frames:
        result = load(paths.result, masks=False)
        frames.keep(result.index)
        with MaskReader(paths.result) as masks:
            queries = QueryPoints(txy=result.query, object_id=result.track_object_id)
            write_overlay(
                paths.overlay,
                frames,
                masks=masks.row,
                tracks=result.tracks,
                queries=queries,
                object_ids=masks.object_id.tolist(),
                style=style,
            )


def picture_clip(clip: Clip, paths: ClipPaths) -> None:
    """Write the prompt frames and their masks as pictures, of a clip whose file is whole.

    Raises:
        AotError: the video cannot be read again, or a picture cannot be written; the clip's file is untouched.
    """
    from aot.drawing.images import write_images

    with error_context(clip_id=clip.clip_id, stage="pictures"), open_source(clip) as frames:
        result = load(paths.result, masks=False)
        prompted = {prompt.frame for prompt in clip.prompts if prompt.is_visual}
        with MaskReader(paths.result) as reader:
            for row, scores in zip(result.mask_row.tolist(), result.mask_score):
                masks = reader.row(row) if result.index[row] in prompted else None
                if masks is not None:
                    found = zip(result.object_id.tolist(), masks, scores)
                    known = {object_id: mask for object_id, mask, score in found if not np.isnan(score)}
                    write_images(paths.pictures, frames.read(result.index[[row]]), known)


def _usable_prompts(clip: Clip, frames: FrameSource) -> tuple[list[Prompt], dict[int, AotError]]:
    prompts, errors = check_prompts(
        clip.prompts,
        width=frames.width,
        height=frames.height,
        frames=frames.index.tolist(),
        num_source_frames=frames.num_source_frames,
    )
    if not prompts:
        raise _all_failed(dict(errors))
    return prompts, dict(errors)


def _rows_to_keep(frames: FrameSource, prompts: list[Prompt], frame_interval: int) -> np.ndarray:
    asked = {prompt.frame for prompt in prompts if prompt.is_visual}
    asked |= {int(query[0]) for prompt in prompts for query in prompt.query_points}
    kept = kept_frames(frames.num_source_frames, frame_interval, sorted(asked))
    return np.intersect1d(kept, frames.index)


def _check_room(frames: FrameSource, prompts: list[Prompt], parts: Parts, settings: Settings) -> None:
    """Refuse at once what the tracker will not have the memory for; minutes of segmentation are not spent on it."""
    if settings.available_bytes is None:
        return
    num_points = sum(
        sum(len(prompt.query_points) for prompt in prompts if prompt.object_id == object_id)
        or parts.query_sampler.max_points
        for object_id in {prompt.object_id for prompt in prompts}
    )
    needed = parts.tracker.needed_bytes(
        num_frames=len(frames.index),
        num_points=num_points,
        width=frames.width,
        height=frames.height,
        lean=settings.lean,
    )
    room = settings.available_bytes()
    if needed > room:
        raise OutOfMemory(
            f"not tried: tracking {num_points} points through {len(frames.index)} frames of "
            f"{frames.width}x{frames.height} px is predicted to need {needed / 1e9:.2f} GB, there are {room / 1e9:.2f} "
            f"GB; use a larger frame_interval, fewer points, or more memory"
        )


def _frames_with_masks(frames: FrameSource, prompts: list[Prompt], segmenter: Segmenter) -> np.ndarray:
    visual = [prompt.frame for prompt in prompts if prompt.is_visual]
    if not visual:
        return np.zeros(0, dtype=np.int64)
    return frames.index if segmenter.propagate else np.unique(np.asarray(visual, dtype=np.int64))


def _segment(
    frames: FrameSource,
    prompts: list[Prompt],
    segmenter: Segmenter,
    writer: ClipWriter,
    errors: dict[int, AotError],
    on_progress: OnProgress,
) -> None:
    visual = [prompt for prompt in prompts if prompt.is_visual]
    if not visual:
        return
    num_masks = len(_frames_with_masks(frames, prompts, segmenter)) * len({prompt.object_id for prompt in visual})
    written = 0
    for block in segmenter.segment(frames, visual, on_object_error=errors.__setitem__):
        writer.write_masks(block)
        written += block.score.size
        on_progress("segment", written / num_masks)


def _choose_query_points(
    prompts: list[Prompt], sampler: QuerySampler, writer: ClipWriter, errors: dict[int, AotError], clip: Clip
) -> QueryPoints:
    """The manifest's own points where an object has some, else points inside its mask on its first prompt frame."""
    txy: list[np.ndarray] = []
    object_ids: list[int] = []
    for object_id in sorted({prompt.object_id for prompt in prompts} - set(errors)):
        own = [prompt for prompt in prompts if prompt.object_id == object_id]
        points = np.asarray([query for prompt in own for query in prompt.query_points], dtype=np.float32)
        if not len(points):
            try:
                points = _sample(object_id, min(p.frame for p in own), sampler, writer, clip)
            except SegmentationError as error:
                errors[object_id] = error
                continue
        txy.append(points)
        object_ids += [object_id] * len(points)
    if not txy:
        raise _all_failed(errors)
    return QueryPoints(txy=np.concatenate(txy), object_id=np.asarray(object_ids, dtype=np.int32))


def _sample(object_id: int, frame: int, sampler: QuerySampler, writer: ClipWriter, clip: Clip) -> np.ndarray:
    masks = writer.read_masks(frame)
    if masks is None:
        raise RuntimeError(f"object {object_id}: the segmenter gave no masks on its prompt frame {frame}")
    mask = masks[clip.object_ids.index(object_id)]
    xy = sampler.sample(mask)
    if not len(xy):
        raise SegmentationError(
            f"object {object_id}: no query point inside its mask of {int(mask.sum())} px on frame {frame}; "
            f"use query_points=adaptive, a better prompt, or query_points of your own in the manifest"
        )
    return np.column_stack([np.full(len(xy), frame, dtype=np.float32), xy])


def _inside_masks(
    tracks: Tracks, queries: QueryPoints, clip: Clip, frames: FrameSource, writer: ClipWriter
) -> tuple[BoolArray, dict[int, float]]:
    """(T, N): whether each position, rounded to its pixel, lies in its own object's mask; and how stable masks are."""
    column = np.searchsorted(clip.object_ids, queries.object_id)
    inside = np.zeros(tracks.visible.shape, dtype=np.bool_)
    stability = MaskStability()
    for row, frame in enumerate(frames.index):
        masks = writer.read_masks(int(frame))
        if masks is None:
            continue
        for object_id, mask in zip(clip.object_ids, masks):
            stability.add(object_id, mask)
        x, y = np.rint(tracks.xy[row]).astype(np.int64).T
        in_frame = (x >= 0) & (x < frames.width) & (y >= 0) & (y < frames.height)
        inside[row, in_frame] = masks[column[in_frame], y[in_frame], x[in_frame]]
    return inside, stability.result()


def _all_failed(errors: dict[int, AotError]) -> AotError:
    """One error for a clip of whose objects none is left; its class is the first object's."""
    first = errors[min(errors)]
    return type(first)("; ".join(str(errors[object_id]) for object_id in sorted(errors)))


def _summarize(
    clip: Clip,
    frames: FrameSource,
    queries: QueryPoints,
    tracks: Tracks,
    in_mask: BoolArray,
    has_masks: bool,
    checks: dict[int, SelfCheck],
    settings: Settings,
    watch: StageTimer,
    errors: dict[int, AotError],
) -> ClipSummary:
    visible = tracks.visible
    return ClipSummary(
        clip_id=clip.clip_id,
        num_objects=len(clip.object_ids),
        num_points=len(queries),
        num_frames=len(frames.index),
        num_source_frames=frames.num_source_frames,
        frame_interval=settings.frame_interval,
        visible_share=float(visible.mean()),
        in_mask_share=float(in_mask[visible].mean()) if has_masks and visible.any() else float("nan"),
        checks={object_id: check.as_json() for object_id, check in checks.items()},
        seconds={**watch.seconds, "decode": frames.decode_seconds},
        peak_memory_bytes=watch.peak_memory_bytes(),
        object_errors={object_id: str(error) for object_id, error in sorted(errors.items())},
        rung=settings.rung,
        num_attempts=len(settings.attempts) + 1,
    )


def _attributes(
    clip: Clip, frames: FrameSource, source_range: list[int], parts: Parts, settings: Settings, summary: ClipSummary
) -> dict[str, Any]:
    attempt = Attempt(Rung(settings.rung, settings.frame_interval, settings.lean))
    models = {"segmenter": parts.segmenter, "tracker": parts.tracker}
    weights = [{"part": role} | asdict(file) for role, part in models.items() for file in weights_of(part)]
    return {
        **settings.provenance,
        "clip_id": clip.clip_id,
        "source": str(clip.source.resolve()),
        "width": frames.width,
        "height": frames.height,
        "fps": frames.fps,
        "num_source_frames": frames.num_source_frames,
        "source_range": json.dumps(source_range),
        "frame_interval_requested": settings.frame_interval_requested,
        "frame_interval": settings.frame_interval,
        "device": describe_devices({role: device_name_of(part) for role, part in models.items()}),
        "weights": json.dumps(weights),
        "attempts": json.dumps([each.as_json() for each in (*settings.attempts, attempt)]),
        "seconds": json.dumps({stage: round(value, 4) for stage, value in summary.seconds.items()}),
        "peak_memory_bytes": summary.peak_memory_bytes,
        "checks": json.dumps(summary.checks),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


class StageTimer:
    """Wall time a stage, decoding apart, and the peak memory of the process since the watch was made."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        # Linux starts the peak anew on request; where it may not, the process's whole peak is what can be told.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    @contextmanager
    def stage(self, name: str, frames: FrameSource | None = None) -> Iterator[None]:
        decoding = frames.decode_seconds if frames else 0.0
        started = time.perf_counter()
        with error_context(stage=name):
            yield
        spent = time.perf_counter() - started
        self.seconds[name] = spent - ((frames.decode_seconds - decoding) if frames else 0.0)

    def peak_memory_bytes(self) -> int:
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
