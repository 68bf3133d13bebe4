"""The page of a sweep, in the style of a run's report: report/index.html and its data, report/data/sweep.js."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from aot.paths import SweepPaths
from aot.report.assets import write_assets
from aot.sweep.runs import Spacing
from aot.sweep.scores import MEASURES, Interval, SweptClip, coarsest_within
from aot.system.files import write_text

_DECIMALS = 4


def write_page(
    paths: SweepPaths,
    clips: Sequence[SweptClip],
    intervals: Sequence[Interval],
    answers: Sequence[str],
    *,
    title: str,
    tolerance: float,
) -> None:
    """Write the page, its assets and its data.

    Args:
        paths: paths of the sweep.
        clips, intervals, answers: results of the sweep.
        title: title of the page.
        tolerance: maximum loss of a score.
    Raises:
        WriteError: the folder cannot be written.
    """
    data = {
        "title": title,
        "tolerance": tolerance,
        "answers": list(answers),
        "measures": [
            {"key": measure, "score": score, "source": _source(measure, clips)}
            for measure, score in MEASURES.items()
            if any(not math.isnan(interval.quality[measure]) for interval in intervals)
        ],
        "groups": sorted({interval.group for interval in intervals}),
        "key": intervals[0].spacing.key,
        "values": list(dict.fromkeys(spacing.value for spacing in sorted({each.spacing for each in intervals}))),
        "intervals": [
            {
                "group": interval.group,
                "value": interval.spacing.value,
                "quality": _as_json(interval.quality),
                "seconds": round(interval.seconds, 3),
                "peak_memory_mb": round(interval.peak_memory_bytes / 1e6, 1),
                "num_clips": interval.num_clips,
            }
            for interval in intervals
        ],
        "clips": _clip_rows(clips, tolerance),
    }
    write_assets(paths.page.parent, {"sweep.html": paths.page.name})
    write_text(paths.data, f"aot.showSweep({json.dumps(data, allow_nan=False)});\n")


def _clip_rows(clips: Sequence[SweptClip], tolerance: float) -> list[dict[str, Any]]:
    """One row per clip and group, with the scores of every interval."""
    by_clip: dict[tuple[str, str], dict[Spacing, SweptClip]] = {}
    for clip in clips:
        by_clip.setdefault((clip.group, clip.clip_id), {})[clip.spacing] = clip
    rows = []
    for (group, clip_id), own in sorted(by_clip.items()):
        finest = own[min(own)]
        runs = {
            spacing.value: {
                "quality": _as_json(clip.quality),
                "beyond": [m for m in MEASURES if finest.quality[m] - clip.quality[m] > tolerance],
                "seconds": round(clip.seconds, 3),
            }
            for spacing, clip in sorted(own.items())
        }
        coarsest = coarsest_within({spacing: clip.quality for spacing, clip in own.items()}, tolerance)
        rows.append({"group": group, "clip_id": clip_id, "coarsest": json.loads(coarsest.value), "runs": runs})
    return rows


def _source(measure: str, clips: Sequence[SweptClip]) -> str:
    """How a measure was scored, in words."""
    used = {clip.by_truth[measure] for clip in clips if not math.isnan(clip.quality[measure])}
    names = {True: "against ground truth", False: "agreement with the finest run"}
    return ", or ".join(name for is_by_truth, name in names.items() if is_by_truth in used)


def _as_json(quality: Any) -> dict[str, float | None]:
    return {m: None if math.isnan(value) else round(value, _DECIMALS) for m, value in quality.items()}
