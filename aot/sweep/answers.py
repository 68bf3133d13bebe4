"""The conclusions of a sweep as sentences: the largest frame_interval, or smallest sample_fps, within the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aot.sweep.runs import FRAME_INTERVAL
from aot.sweep.scores import MEASURES, Interval, coarsest_within


def write_answers(intervals: Sequence[Interval], tolerance: float) -> list[str]:
    """One sentence per measure and group, and one for all measures together.

    Args:
        intervals: the intervals of the sweep, each with at least one clip.
        tolerance: maximum loss of a score.
    """
    groups = sorted({interval.group for interval in intervals})
    return [answer for group in groups for answer in _answers_of_group(group, intervals, tolerance)]


def _answers_of_group(group: str, intervals: Sequence[Interval], tolerance: float) -> list[str]:
    own = {interval.spacing: interval for interval in intervals if interval.group == group}
    quality = {spacing: interval.quality for spacing, interval in own.items()}
    finest = own[min(own)]
    key = finest.spacing.key
    larger, largest = ("larger", "largest") if key == FRAME_INTERVAL else ("smaller", "smallest")
    measures = [measure for measure in MEASURES if not math.isnan(finest.quality[measure])]
    answers = []
    for measure in measures:
        best = own[coarsest_within(quality, tolerance, [measure])]
        limit = f"within {tolerance:g} of the score of {finest.spacing}"
        if best is finest:
            compared = own[sorted(own)[1]] if len(own) > 1 else finest
            conclusion = f"no {larger} {key} is {limit}"
        else:
            compared = best
            conclusion = f"{best.spacing} is the {largest} {limit}"
        answers.append(f"{measure}: {conclusion}; {_comparison(measure, finest, compared)}")
    if len(measures) > 1:
        answers.append(
            f"{' and '.join(measures)}: {coarsest_within(quality, tolerance)} is the {largest} that keeps both within "
            f"{tolerance:g}"
        )
    return [f"{group}, {answer}" if group else answer for answer in answers]


def _comparison(measure: str, finest: Interval, other: Interval) -> str:
    quality = _instead_of(f"{other.quality[measure]:.3f}", f"{finest.quality[measure]:.3f}")
    seconds = _instead_of(f"{other.seconds:.1f} s", f"{finest.seconds:.1f} s")
    memory = _instead_of(f"{other.peak_memory_bytes / 1e6:.0f} MB", f"{finest.peak_memory_bytes / 1e6:.0f} MB")
    return f"{other.spacing} has {MEASURES[measure]} {quality} and takes {seconds} and {memory}"


def _instead_of(new: str, old: str) -> str:
    return new if new == old else f"{new} instead of {old}"
