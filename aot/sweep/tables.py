"""The scores of a sweep as CSV, and as a table for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from rich.table import Table

from aot.sweep.runs import FRAME_INTERVAL
from aot.sweep.scores import MEASURES, Interval, SweptClip


def interval_table(intervals: Sequence[Interval]) -> Table:
    """One line per interval and group."""
    has_groups = any(interval.group for interval in intervals)
    table = Table(box=None, pad_edge=False)
    key = intervals[0].spacing.key
    for heading in (
        "interval" if key == FRAME_INTERVAL else key,
        *(f"{m} ({score})" for m, score in MEASURES.items()),
        "seconds",
        "peak MB",
        "clips",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    if has_groups:
        table.add_column("options", overflow="fold")
    for i in intervals:
        quality = ("–" if math.isnan(i.quality[m]) else f"{i.quality[m]:.3f}" for m in MEASURES)
        cells = [i.spacing.value, *quality, f"{i.seconds:.1f}", f"{i.peak_memory_bytes / 1e6:.0f}"]
        table.add_row(*cells, str(i.num_clips), *([i.group] if has_groups else []))
    return table


def clips_as_csv(clips: Sequence[SweptClip]) -> str:
    """One line per clip and run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [f"{measure} ({score})" for measure, score in MEASURES.items()]
    by_truth = [f"{measure} by truth" for measure in MEASURES]
    costs = ["seconds", "peak_memory_mb", "source_frames"]
    key = clips[0].spacing.key if clips else FRAME_INTERVAL
    writer.writerow(["group", key, "frame_interval_used", "clip_id", *names, *by_truth, *costs])
    for clip in clips:
        quality = ["" if math.isnan(clip.quality[m]) else round(clip.quality[m], 4) for m in MEASURES]
        writer.writerow([clip.group, clip.spacing.value, clip.frame_interval_used, clip.clip_id, *quality,
                         *(clip.by_truth[m] for m in MEASURES), round(clip.seconds, 3),
                         round(clip.peak_memory_bytes / 1e6, 1), clip.num_source_frames])  # fmt: skip
    return text.getvalue()
