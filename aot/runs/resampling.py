"""Resample tracks in time and space, as training code for images of one size and clips of one length expects them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aot.types import BoolArray, Float32Array, Float64Array, Int64Array


def scaled(xy: Float32Array, source: tuple[int, int], target: tuple[int, int]) -> Float32Array:
    """Positions in an image that was resized, aspect ratio included.

    Args:
        xy: (…, 2) px of the source, pixel centres at integers.
        source, target: width and height, px.
    Returns:
        (…, 2) px of the resized image, pixel centres at integers; exact, for the edges of both images coincide.
    """
    if source == target:
        return xy
    factor = np.array(target, np.float32) / np.array(source, np.float32)
    resized: Float32Array = ((xy + np.float32(0.5)) * factor - np.float32(0.5)).astype(np.float32)
    return resized


def fractional_rows(time: Float64Array, num_frames: int) -> Float64Array:
    """(num_frames,) positions between rows, at equal distances in time from the first row to the last.

    Args:
        time: (T,) of the rows, s; ascending.
        num_frames: number of positions.
    """
    rows = np.interp(np.linspace(time[0], time[-1], num_frames), time, np.arange(len(time)))
    # Without the last digits, in which times are inexact, so that the middle between two rows is recognised.
    return np.round(rows, 6)


def nearest_rows(rows: Float64Array) -> Int64Array:
    """The rows nearest to positions between rows; the earlier one of two that are equally near."""
    return np.ceil(rows - 0.5).astype(np.int64)


def resampled(xy: Float32Array, valid: BoolArray, rows: Float64Array) -> tuple[Float32Array, BoolArray]:
    """Tracks at positions between rows: positions by linear interpolation, validity of the nearest row.

    Args:
        xy: (T, N, 2).
        valid: (T, N).
        rows: (S,) in 0..T − 1.
    Returns:
        (S, N, 2) and (S, N).
    """
    before = np.floor(rows).astype(np.int64)
    after = np.minimum(before + 1, len(xy) - 1)
    weight = (rows - before).astype(np.float32)[:, None, None]
    between: Float32Array = (xy[before] * (1 - weight) + xy[after] * weight).astype(np.float32)
    return between, valid[nearest_rows(rows)]


def chosen_points(valid: BoolArray, num_points: int, seed: Sequence[int]) -> Int64Array:
    """(num_points,) positions among N points: valid ones, repeated if fewer are; among all points if none is valid.

    Args:
        valid: (N,).
        num_points: to choose.
        seed: the same seed chooses the same points.
    """
    among = np.flatnonzero(valid) if valid.any() else np.arange(len(valid))
    rng = np.random.default_rng(seed)
    return np.resize(rng.permutation(among), num_points)
