"""Frames chosen by time: which frames are nearest to the output times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aot.decoding.sampling import sampled_rows
from aot.types import Float64Array

# In ms, as containers count; gaps from a tenth of a step to several steps.
GAPS = st.lists(st.integers(1, 700), max_size=40)
STEPS = st.sampled_from([10, 40, 50, 100, 200, 333])


def times_of(gaps: list[int], start: float = 0.0) -> Float64Array:
    return start + np.cumsum([0, *gaps]) / 1000


def nearest(time: Float64Array, step: float) -> list[int]:
    """The definition, output time by output time."""
    shown = min(time[-1] - time[-2], step) if len(time) > 1 else 0.0
    count = int(np.floor(round((time[-1] - time[0] + shown / 2) / step, 6))) + 1
    return sorted({int(np.argmin(np.round(np.abs(time - time[0] - number * step), 6))) for number in range(count)})


@given(GAPS, STEPS, st.sampled_from([0.0, -3.25, 12345.678]))
def test_the_nearest_frame_of_every_output_time_is_kept_once(gaps: list[int], step: int, start: float) -> None:
    time = times_of(gaps, start)
    assert sampled_rows(time, 1000 / step).tolist() == nearest(time, step / 1000)


@given(st.lists(st.integers(0, 500), max_size=40), STEPS)
def test_a_slower_clip_keeps_all_its_frames(extra: list[int], step: int) -> None:
    time = times_of([step + each for each in extra])
    assert len(sampled_rows(time, 1000 / step)) == len(time)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_a_longer_clip_of_constant_rate_starts_with_the_same_choice(fps: int, sample_fps: int, length: int) -> None:
    longer = sampled_rows(np.arange(length + 50) / fps, sample_fps)
    assert sampled_rows(np.arange(length) / fps, sample_fps).tolist() == longer[longer < length].tolist()


@pytest.mark.parametrize(
    ("time", "fps", "rows"),
    [
        (np.arange(12) / 25, 10, [0, 2, 5, 7, 10]),  # 100 ms is between frames 2 and 3
        (np.arange(10) / 30, 30, list(range(10))),
        (np.arange(10) / 29.97, 30, list(range(10))),
        (np.arange(8) / 30, 15, [0, 2, 4, 6]),
        (np.arange(4) / 2, 10, [0, 1, 2, 3]),
        (np.array([0, 0.04, 0.08, 0.13, 0.28, 0.31]), 10, [0, 2, 3, 5]),
        (np.array([7.5]), 10, [0]),
        (np.arange(5) / 10, 0.01, [0]),
        (np.arange(5) / 10, 1e12, [0, 1, 2, 3, 4]),  # takes no memory per output time
    ],
)
def test_examples(time: Float64Array, fps: float, rows: list[int]) -> None:
    assert sampled_rows(time, fps).tolist() == rows
