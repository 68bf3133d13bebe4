"""Results at the full frame rate of their source, so that runs with different frame_interval can be compared.

source   0  1  2  3  4  5  6  7  8  9
kept     #           #           #        frame_interval=4
masks    0  0  0  0  4  4  4  4  8  8     held from the previous kept frame
tracks   #  ·  ·  ·  #  ·  ·  ·  #  8     · interpolated in time; held after the last kept frame
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from aot.system.array_fields import ArrayFields
from aot.types import BoolArray, ClipResult, Float32Array, Int64Array


@dataclass(frozen=True, eq=False, repr=False)
class FullRateTracks(ArrayFields):
    """Tracks on arbitrary source frames of the clip."""

    index: Int64Array
    """(F,) source frames."""
    xy: Float32Array
    """(F, N, 2) px."""
    visible: BoolArray
    """(F, N) from the nearest kept frame."""
    interpolated: BoolArray
    """(F,) True if the run did not keep the frame: positions are interpolated between the neighbouring kept frames."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("index", np.int64, ("F",), sizes)
        self._check("xy", np.float32, ("F", "N", 2), sizes)
        self._check("visible", np.bool_, ("F", "N"), sizes)
        self._check("interpolated", np.bool_, ("F",), sizes)


def full_rate_frames(result: ClipResult) -> Int64Array:
    """The source frames that a result covers, kept or not: all of the source, or the selected time range.

    A file without the attribute `source_range` is assumed to reach the end of the source if its last kept frame is
    less than one interval away from it.
    """
    if "source_range" in result.attributes:
        first, last = json.loads(result.attributes["source_range"])
        return np.arange(first, last + 1, dtype=np.int64)
    end = int(result.attributes["num_source_frames"])
    last = int(result.index[-1])
    reached_end = end - 1 - last < int(result.attributes["frame_interval"])
    return np.arange(int(result.index[0]), end if reached_end else last + 1, dtype=np.int64)


def held_rows(index: Int64Array, frames: Int64Array) -> Int64Array:
    """The row of the last kept frame at or before each frame; the first row for frames before all kept ones.

    Args:
        index: (T,) kept source frames, ascending.
        frames: (F,) source frames.
    """
    return np.maximum(np.searchsorted(index, frames, side="right") - 1, 0).astype(np.int64)


def tracks_at(result: ClipResult, frames: Int64Array) -> FullRateTracks:
    """Interpolate a result's tracks in time.

    Args:
        result: T kept frames.
        frames: (F,) source frames, ascending.
    Returns:
        FullRateTracks of F frames.
    """
    before = held_rows(result.index, frames)
    after = np.minimum(before + 1, len(result.index) - 1)
    span = np.maximum(result.index[after] - result.index[before], 1)
    fraction = np.clip((frames - result.index[before]) / span, 0, 1).astype(np.float32)[:, None]
    xy = result.tracks.xy
    nearest = np.where(fraction[:, 0] > 0.5, after, before)
    return FullRateTracks(
        index=frames,
        xy=(xy[before] * (1 - fraction[..., None]) + xy[after] * fraction[..., None]).astype(np.float32),
        visible=result.tracks.visible[nearest],
        interpolated=~np.isin(frames, result.index),
    )
