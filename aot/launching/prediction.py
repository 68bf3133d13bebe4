"""How long the clips of a run will take, predicted from those that are done.

worker  ── a ──┬──── b ────┬─ c ─┤
drawer         └ a ┘       └─ b ─┴ c ┘      the time of a shard: until its last clip is drawn
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aot.launching.base import Preview
from aot.launching.plan import Plan, missing_drawings
from aot.runs.ledger import last_done
from aot.runs.task import ClipTask, Work
from aot.runs.timing import drawing_seconds, result_seconds


@dataclass(frozen=True)
class ClipSeconds:
    """Predicted time of a clip, s."""

    computing: float
    """Of a worker, until its result is complete."""
    drawing: float
    """Of a drawer, or of the worker where there are none."""


def predict_seconds(plan: Plan, tasks: Sequence[ClipTask]) -> dict[str, ClipSeconds] | None:
    """Predicted time per clip, from the time and the cost of the clips that are done; None if none is.

    Stages of drawing that were never measured count as 0.

    Args:
        plan: of the run.
        tasks: the clips that need work.
    """
    done = {clip_id: event for clip_id, event in last_done(plan.paths, "summary").items() if clip_id in plan.costs}
    if not done:
        return None
    computing = {clip_id: result_seconds(event["summary"]["seconds"]) for clip_id, event in done.items()}
    spent = drawing_seconds(plan.paths, {clip_id: event["at"] for clip_id, event in done.items()})
    # The number of objects hardly matters to a drawing.
    drawing_costs = {clip.clip_id: plan.costs[clip.clip_id] / max(1, len(clip.object_ids)) for clip in plan.clips}
    stages = {stage for of_clip in spent.values() for stage in of_clip}
    per_cost = _per_cost(computing, plan.costs)
    per_drawing_cost = {
        stage: _per_cost({clip_id: spent[clip_id][stage] for clip_id in done if stage in spent.get(clip_id, {})},
                         drawing_costs)
        for stage in stages
    }  # fmt: skip
    return {
        task.clip.clip_id: ClipSeconds(
            computing=plan.costs[task.clip.clip_id] * per_cost if task.work is Work.ALL else 0.0,
            drawing=drawing_costs[task.clip.clip_id]
            * sum(per_drawing_cost.get(stage, 0.0) for stage in _stages_left(plan, task)),
        )
        for task in tasks
    }


def shard_seconds(shard: Sequence[str], seconds: Mapping[str, ClipSeconds], preview: Preview) -> float:
    """Time from the start of a shard until its last clip is drawn, if the workers and drawers divide it evenly.

    Args:
        shard: clip ids, in the order in which they are computed.
        seconds: of `predict_seconds`.
        preview: number of workers and drawers of the shard.
    """
    if not shard:
        return 0.0
    computing = [seconds[clip_id].computing for clip_id in shard]
    drawing = [seconds[clip_id].drawing for clip_id in shard]
    if not preview.drawers_per_shard:
        return _divided([sum(both) for both in zip(computing, drawing)], preview.workers_per_shard)
    last_drawn = _divided(computing, preview.workers_per_shard) + drawing[-1]
    return max(last_drawn, computing[0] + _divided(drawing, preview.drawers_per_shard))


def run_seconds(seconds: Mapping[str, ClipSeconds], preview: Preview) -> float:
    """Time from the start of the first shard to the end of the last one.

    Args:
        seconds: of `predict_seconds`.
        preview: the shards, and how many of them are processed at the same time.
    """
    ends = [0.0] * (preview.max_workers // preview.workers_per_shard)
    for shard in preview.shards:  # the next shard goes to the first workers that are free
        ends[ends.index(min(ends))] += shard_seconds(shard, seconds, preview)
    return max(ends)


def _per_cost(spent: Mapping[str, float], costs: Mapping[str, float]) -> float:
    return sum(spent.values()) / sum(costs[clip_id] for clip_id in spent)


def _divided(seconds: Sequence[float], count: int) -> float:
    """Time for clips that are divided evenly; a single clip is not divided."""
    return max(sum(seconds) / count, max(seconds))


def _stages_left(plan: Plan, task: ClipTask) -> list[str]:
    """The stages of drawing that a clip needs."""
    if task.work is not Work.ALL:
        missing = missing_drawings(plan.config, task.clip, plan.paths.clip(task.clip.clip_id))
        return missing if task.is_scored else ["score", *missing]
    output = plan.config.output
    requested = {"overlay": output.overlay, "pictures": output.pictures, "report": output.report}
    return ["score", *(stage for stage, is_requested in requested.items() if is_requested)]
