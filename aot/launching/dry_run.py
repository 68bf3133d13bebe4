"""What a command would do: clips, shards, predicted memory rung and time, and the script for the scheduler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from rich.console import Console

from aot.checkpoints import available_bytes
from aot.decoding.size import ClipSize, num_kept_frames
from aot.launching.base import Launcher, Preview
from aot.launching.plan import Plan
from aot.query_points.base import QuerySampler
from aot.retry import Rung, ladder
from aot.runs.ledger import last_done
from aot.runs.task import ClipTask, Work
from aot.tracking.base import Tracker
from aot.types import Clip

# More rows than this scroll the totals out of sight.
_MAX_ROWS = 20


def print_plan(plan: Plan, console: Console) -> None:
    """Print the plan; nothing is started and nothing written."""
    work = plan.work()
    todo = [each for each in work if each.work in (Work.ALL, Work.OVERLAY)]
    counts = Counter(each.work for each in work)
    lines = [
        str(plan.paths.root),
        f"{len(work)} clips: {counts[Work.ALL]} to run, {counts[Work.OVERLAY]} to draw, {counts[Work.NOTHING]} "
        f"finished before, {counts[Work.FAILED_BEFORE]} failed before",
    ]
    if todo:
        launcher: Launcher = plan.config.launcher.build()
        preview = launcher.preview(plan, todo)
        seconds = _predict_seconds(plan, todo)
        lines += _describe_shards(preview, seconds)
        lines += _describe_time(preview, seconds)
        lines += _describe_memory(plan, [each.clip for each in todo if each.work is Work.ALL], preview)
        lines += [f"\n{preview.script}"] if preview.script else []
    lines.append("nothing was started (dry_run=true)")
    console.print("\n".join(lines), highlight=False, markup=False)


def _describe_shards(preview: Preview, seconds: dict[str, float] | None) -> list[str]:
    shards = [shard for shard in preview.shards if shard]
    workers = f" of {preview.workers_per_shard} workers" if preview.workers_per_shard > 1 else ""
    at_once = preview.workers_at_once // preview.workers_per_shard
    lines = [f"{_counted(len(shards), 'shard')}{workers}, {at_once} at once:"]
    for number, shard in enumerate(shards[:_MAX_ROWS], start=1):
        takes = f", about {_duration(_shard_seconds(shard, seconds, preview))}" if seconds else ""
        named = ", ".join(shard[:4]) + (", …" if len(shard) > 4 else "")
        lines.append(f"  {number}: {_counted(len(shard), 'clip')}{takes}: {named}")
    return lines + ([f"  … and {len(shards) - _MAX_ROWS} more"] if len(shards) > _MAX_ROWS else [])


def _describe_time(preview: Preview, seconds: dict[str, float] | None) -> list[str]:
    if seconds is None:
        return ["time: not known before a clip of this run is done; dataset.limit=3 makes a pilot"]
    ends = [0.0] * (preview.workers_at_once // preview.workers_per_shard)
    for shard in preview.shards:  # whoever is free takes the next
        ends[ends.index(min(ends))] += _shard_seconds(shard, seconds, preview)
    return [
        f"time: about {_duration(max(ends))}, {_duration(sum(seconds.values()))} of one worker, judged by the clips "
        f"done so far"
    ]


def _shard_seconds(shard: Sequence[str], seconds: dict[str, float], preview: Preview) -> float:
    """Seconds until the workers of a shard are through with it, if all goes evenly."""
    spent = [seconds[clip_id] for clip_id in shard]
    return max(sum(spent) / preview.workers_per_shard, max(spent, default=0.0))


def _predict_seconds(plan: Plan, todo: Sequence[ClipTask]) -> dict[str, float] | None:
    """Seconds each clip will take, by what those that are done took for their size; None before any is."""
    done = last_done(plan.paths, "summary")
    measured = [(clip_id, event["summary"]["seconds"]) for clip_id, event in done.items() if clip_id in plan.costs]
    if not measured:
        return None
    spent = sum(sum(stages.values()) for _, stages in measured)
    per_unit = spent / sum(plan.costs[clip_id] for clip_id, _ in measured)
    # Drawing is not in what was measured.
    return {
        each.clip.clip_id: plan.costs[each.clip.clip_id] * per_unit if each.work is Work.ALL else 0.0 for each in todo
    }


def _describe_memory(plan: Plan, clips: Sequence[Clip], preview: Preview) -> list[str]:
    config = plan.config
    tracker: Tracker = config.tracker.build()
    sampler: QuerySampler = config.query_points.build()
    # A scheduler's machines are not this one.
    here = available_bytes(tracker) if preview.script is None else None
    known = [value for value in (here, preview.available_bytes) if value is not None]
    if not known:
        return ["memory: not known; with launcher.mem_gb it is told which clips are predicted to be tried leaner"]
    room = min(known)
    rungs = ladder(config.frame_interval, config.ladder.max_frame_interval)
    predicted = Counter(
        _first_that_fits(clip, plan.sizes[clip.clip_id], rungs, tracker, sampler, room)
        for clip in clips
        if clip.clip_id in plan.sizes
    )
    lines = [f"memory of a worker: {room / 1e9:.1f} GB; the first attempt is predicted to be"] if predicted else []
    for rung in rungs:
        if predicted[rung]:
            what = "as configured" if rung.number == 1 else f"lean, frame_interval {rung.frame_interval}"
            lines.append(f"  rung {rung.number} ({what}): {predicted[rung]} clips")
    unknown = len(clips) - predicted.total()
    return lines + ([f"  {unknown} clips were not looked into"] if unknown else [])


def _first_that_fits(
    clip: Clip, size: ClipSize, rungs: Sequence[Rung], tracker: Tracker, sampler: QuerySampler, room: int
) -> Rung:
    """The rung that a worker would begin with; the last one is tried whatever is predicted."""
    by_object = {prompt.object_id: 0 for prompt in clip.prompts}
    for prompt in clip.prompts:
        by_object[prompt.object_id] += len(prompt.query_points)
    num_points = sum(own or sampler.max_points for own in by_object.values())
    for rung in rungs:
        needed = tracker.needed_bytes(
            num_frames=num_kept_frames(size, clip, rung.frame_interval),
            num_points=num_points,
            width=size.width,
            height=size.height,
            lean=rung.lean,
        )
        if needed <= room:
            return rung
    return rungs[-1]


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
