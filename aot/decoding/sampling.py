"""Which frames of a clip are kept for a number of frames per second: by their presentation times."""

from __future__ import annotations

import numpy as np

from aot.types import Float64Array, Int64Array

# Times that differ by less are equal: containers round them, the finest usual ones to 1/90000 s.
_EQUAL_SECONDS = 1e-6


def sampled_rows(time: Float64Array, sample_fps: float) -> Int64Array:
    """The frames nearest to the output times 0, 1 / sample_fps, 2 / sample_fps, … s after the first frame.

        sample_fps=10, times in ms
        output   0          100          200          300
        frames   0    40   80   130                280  310
        kept     #         #    #                       #     80 is nearest to 100, 130 to 200, and 310 to 300

    No frame is repeated, so that a clip whose frames are at least 1 / sample_fps apart keeps all of them. Of two
    frames that are equally near, the earlier one is kept. The last frame is taken to be shown for as long as the one
    before it, but not longer than 1 / sample_fps, and output times until half of that after it count.

    Args:
        time: (T,) ascending presentation times, s; at least one.
        sample_fps: output times per second, > 0.
    Returns:
        (S,) ascending rows of `time`, the first of which is 0.
    """
    # A frame is kept if an output time lies between the middles to its neighbours: if more output times come before
    # the end of its interval than before the end of the one before it.
    gaps = np.diff(time)
    last_gap = min(gaps[-1], 1 / sample_fps) if len(gaps) else 0.0
    ends = time - time[0] + np.append(gaps, last_gap) / 2 + _EQUAL_SECONDS / 2
    last_output = np.floor(ends * sample_fps)
    return np.flatnonzero(np.diff(last_output, prepend=-1.0) > 0).astype(np.int64)
