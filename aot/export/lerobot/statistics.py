"""Statistics of features, as LeRobot stores them per episode and for the dataset.

The statistics of positions are those of x and of y over all points and frames, repeated for every point: they have
the shape that the loader expects, and normalising by them moves and scales all points in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aot.export.lerobot.episodes import EpisodeTracks
from aot.types import Int64Array

Statistics = dict[str, NDArray[Any]]
"""min, max, mean, std, count (1,), and in v3 quantiles."""

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_DIGITS = 6


def of_tracks(tracks: EpisodeTracks) -> Statistics | None:
    """Statistics of the positions of an episode; None if it has none. `count`: frames with positions."""
    has_value = tracks.has_position
    if not has_value.any():
        return None
    values = tracks.xy[has_value].astype(np.float64)
    found = {
        "min": values.min(axis=0), "max": values.max(axis=0), "mean": values.mean(axis=0), "std": values.std(axis=0),
        **{name: np.quantile(values, fraction, axis=0) for name, fraction in QUANTILES.items()},
    }  # fmt: skip
    shape = tracks.xy.shape[1:]
    repeated: Statistics = {name: np.broadcast_to(value, shape) for name, value in found.items()}
    return repeated | {"count": np.array([int(has_value.any(axis=1).sum())])}


def of_rows(values: NDArray[Any]) -> Statistics:
    """Statistics over the first axis of (L, …) values, element by element."""
    numbers = values.astype(np.float64)
    return {
        "min": numbers.min(axis=0), "max": numbers.max(axis=0), "mean": numbers.mean(axis=0),
        "std": numbers.std(axis=0), "count": np.array([len(values)]),
    }  # fmt: skip


def of_labels(histogram: Int64Array, num_frames: int) -> Statistics:
    """Statistics of the pixels of grey frames, as fractions of 255, per channel.

    Args:
        histogram: (256,) number of pixels by value.
        num_frames: number of frames.
    """
    values, total = np.arange(256) / 255, histogram.sum()
    mean = float((histogram * values).sum() / total)
    present = values[histogram > 0]
    cumulative = np.cumsum(histogram) / total
    found = {
        "min": present[0], "max": present[-1], "mean": mean,
        "std": float(np.sqrt((histogram * (values - mean) ** 2).sum() / total)),
        **{name: values[np.searchsorted(cumulative, fraction)] for name, fraction in QUANTILES.items()},
    }  # fmt: skip
    channels: Statistics = {name: np.full((3, 1, 1), value) for name, value in found.items()}
    return channels | {"count": np.array([num_frames])}


def combined(statistics: Sequence[Statistics]) -> Statistics:
    """Statistics of several episodes together, by the rule of LeRobot: means and quantiles are weighted by `count`."""
    counts = np.stack([each["count"] for each in statistics]).astype(np.float64)
    stacked = {name: np.stack([each[name] for each in statistics]) for name in statistics[0] if name != "count"}
    weights = (counts / counts.sum()).reshape(-1, *[1] * (stacked["mean"].ndim - 1))
    mean = (stacked["mean"] * weights).sum(axis=0)
    variance = ((stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2) * weights).sum(axis=0)
    found: Statistics = {"min": stacked["min"].min(axis=0), "max": stacked["max"].max(axis=0), "mean": mean}
    found |= {"std": np.sqrt(variance), "count": counts.sum(axis=0).astype(np.int64)}
    return found | {name: (stacked[name] * weights).sum(axis=0) for name in QUANTILES if name in stacked}


def complete(statistics: dict[int, Statistics | None]) -> dict[int, Statistics]:
    """Give episodes without values those of all others with `count` 0, so that no mean contains them."""
    present = [each for each in statistics.values() if each is not None]
    if not present:
        return {}
    missing = combined(present) | {"count": np.array([0])}
    return {number: missing if each is None else each for number, each in statistics.items()}


def as_lists(statistics: Statistics, *, with_quantiles: bool) -> dict[str, Any]:
    """As lists of numbers, rounded to six digits."""
    return {
        name: _rounded(values).tolist()
        for name, values in statistics.items()
        if with_quantiles or name not in QUANTILES
    }


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    if not np.issubdtype(values.dtype, np.floating):
        return values
    with np.errstate(divide="ignore"):
        magnitude = np.floor(np.log10(np.abs(values)))
    scale = 10.0 ** (_DIGITS - 1 - np.where(np.isfinite(magnitude), magnitude, 0))
    rounded: NDArray[Any] = np.round(values * scale) / scale
    return rounded
