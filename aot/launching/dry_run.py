"""What a command would do: clips, shards, predicted memory rung and time, and the scheduler's batch script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console

from aot.checkpoints import available_bytes
from aot.config import RunConfig
from aot.decoding.size import ClipSize, num_kept_frames
from aot.launching.base import Launcher, Preview
from aot.launching.plan import Plan
from aot.launching.prediction import ClipSeconds, predict_seconds, run_seconds, shard_seconds
from aot.memory_plan import needed_bytes, planned_points
from aot.query_points.base import QuerySampler
from aot.retry import Rung, ladder
from aot.runs.task import Work
from aot.system.text import counted, first_names
from aot.tracking.base import Tracker
from aot.types import Clip

# More rows than this would scroll the totals off the screen.
_MAX_ROWS = 20


def print_plan(plan: Plan, console: Console) -> None:
    """Print the plan; nothing is started and nothing is written."""
    tasks = plan.tasks(retries=True)
    pending = [task for task in tasks if task.is_pending]
    counts = Counter(task.work for task in tasks)
    lines = [
        str(plan.paths.root),
        f"{counted(len(tasks), 'clip')}: {counts[Work.ALL]} to run, {counts[Work.OVERLAY]} to draw, "
        f"{counts[Work.NOTHING]} finished before, {counts[Work.FAILED_BEFORE]} failed before",
    ]
    damaged = [task.clip.clip_id for task in tasks if task.is_damaged]
    if damaged:
        lines.append(f"changed in size since they were written, to be computed again: {first_names(damaged)}")
    lines += plan.skipped
    if pending:
        launcher: Launcher = plan.config.launcher.build()
        preview = launcher.preview(plan, pending)
        seconds = predict_seconds(plan, pending)
        lines += _describe_shards(preview, seconds)
        lines += _describe_time(preview, seconds)
        lines += _describe_memory(plan, [task.clip for task in pending if task.work is Work.ALL], preview)
        lines += [f"\n{preview.script}"] if preview.script else []
    lines.append("nothing was started (dry_run=true)")
    console.print("\n".join(lines), highlight=False, markup=False)


def _describe_shards(preview: Preview, seconds: dict[str, ClipSeconds] | None) -> list[str]:
    shards = [shard for shard in preview.shards if shard]
    workers = f" of {preview.workers_per_shard} workers" if preview.workers_per_shard > 1 else ""
    max_shards = preview.max_workers // preview.workers_per_shard
    lines = [f"{counted(len(shards), 'shard')}{workers}, at most {max_shards} at a time:"]
    for number, shard in enumerate(shards[:_MAX_ROWS], start=1):
        duration = f", about {_duration(shard_seconds(shard, seconds, preview))}" if seconds else ""
        names = first_names(shard, at_most=4)
        lines.append(f"  {number}: {counted(len(shard), 'clip')}{duration}: {names}")
    return lines + ([f"  … and {len(shards) - _MAX_ROWS} more"] if len(shards) > _MAX_ROWS else [])


def _describe_time(preview: Preview, seconds: dict[str, ClipSeconds] | None) -> list[str]:
    if seconds is None:
        return ["time: unknown until a clip of this run is done; run a pilot with dataset.limit=3"]
    computing = sum(each.computing for each in seconds.values())
    drawing = sum(each.drawing for each in seconds.values())
    single = (
        f"{_duration(computing)} for a single worker, {_duration(drawing)} for a single drawer"
        if preview.drawers_per_shard
        else f"{_duration(computing + drawing)} for a single worker"
    )
    total = _duration(run_seconds(seconds, preview))
    return [f"time: about {total} in total, {single}; estimated from the clips done so far"]


def _describe_memory(plan: Plan, clips: Sequence[Clip], preview: Preview) -> list[str]:
    config = plan.config
    tracker: Tracker = config.tracker.build()
    sampler: QuerySampler = config.query_points.build()
    # The machines of a scheduler are not this one.
    here = available_bytes(tracker, preview.processes_per_gpu) if preview.script is None else None
    known = [value for value in (here, preview.available_bytes) if value is not None]
    if not known:
        return ["memory: unknown; set launcher.mem_gb to see for which clips a leaner attempt is predicted"]
    available = min(known)
    rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
    predicted = Counter(
        _first_that_fits(clip, plan.sizes[clip.clip_id], rungs, tracker, sampler, config, available)
        for clip in clips
        if clip.clip_id in plan.sizes
    )
    lines = [f"memory of a worker: {available / 1e9:.1f} GB; predicted first attempt:"] if predicted else []
    for rung in rungs:
        if predicted[rung]:
            what = "as configured" if rung.number == 1 else f"lean, frame_interval {rung.frame_interval}"
            lines.append(f"  rung {rung.number} ({what}): {counted(predicted[rung], 'clip')}")
    unknown = len(clips) - predicted.total()
    return lines + ([f"  unknown, because the size was not read: {counted(unknown, 'clip')}"] if unknown else [])


def _first_that_fits(
    clip: Clip,
    size: ClipSize,
    rungs: Sequence[Rung],
    tracker: Tracker,
    sampler: QuerySampler,
    config: RunConfig,
    available: int,
) -> Rung:
    """The rung that a worker with this many available bytes would start with; the last one is always tried."""
    options = config.points
    num_points = planned_points(clip.prompts, sampler, options, (size.height, size.width))
    for rung in rungs:
        needed = needed_bytes(
            tracker,
            num_frames=num_kept_frames(size, clip, rung.frame_interval, config.sample_fps),
            num_points=num_points,
            num_objects=clip.num_objects,
            width=size.width,
            height=size.height,
            lean=rung.lean,
            points_at_once=options.points_at_once,
        )
        if needed <= available:
            return rung
    return rungs[-1]


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
