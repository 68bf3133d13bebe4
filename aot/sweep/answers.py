"""The conclusions of a sweep as sentences: the largest frame_interval within the tolerance."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aot.sweep.scores import MEASURES, Interval, largest_within


def write_answers(intervals: Sequence[Interval], tolerance: float) -> list[str]:
    """One sentence per measure and group, and one for all measures together.

    Args:
        intervals: the intervals of the sweep, each with at least one clip.
        tolerance: maximum loss of a score.
    """
    groups = sorted({interval.group for interval in intervals})
    return [answer for group in groups for answer in _answers_of_group(group, intervals, tolerance)]


def _answers_of_group(group: str, intervals: Sequence[Interval], tolerance: float) -> list[str]:
    own = {interval.frame_interval: interval for interval in intervals if interval.group == group}
    quality = {k: interval.quality for k, interval in own.items()}
    finest = own[min(own)]
    measures = [measure for measure in MEASURES if not math.isnan(finest.quality[measure])]
    answers = []
    for measure in measures:
        best = own[largest_within(quality, tolerance, [measure])]
        limit = f"within {tolerance:g} of the score of frame_interval={finest.frame_interval}"
        if best is finest:
            compared = own[sorted(own)[1]] if len(own) > 1 else finest
            conclusion = f"no larger frame_interval is {limit}"
        else:
            compared = best
            conclusion = f"frame_interval={best.frame_interval} is the largest {limit}"
        answers.append(f"{measure}: {conclusion}; {_comparison(measure, finest, compared)}")
    if len(measures) > 1:
        answers.append(
            f"{' and '.join(measures)}: frame_interval={largest_within(quality, tolerance)} is the largest that keeps "
            f"both within {tolerance:g}"
        )
    return [f"{group}, {answer}" if group else answer for answer in answers]


def _comparison(measure: str, finest: Interval, other: Interval) -> str:
    quality = _instead_of(f"{other.quality[measure]:.3f}", f"{finest.quality[measure]:.3f}")
    seconds = _instead_of(f"{other.seconds:.1f} s", f"{finest.seconds:.1f} s")
    memory = _instead_of(f"{other.peak_memory_bytes / 1e6:.0f} MB", f"{finest.peak_memory_bytes / 1e6:.0f} MB")
    return f"frame_interval={other.frame_interval} has {MEASURES[measure]} {quality} and takes {seconds} and {memory}"


def _instead_of(new: str, old: str) -> str:
    return new if new == old else f"{new} instead of {old}"
