"""Moving lost points along with their neighbours on the same object."""

from __future__ import annotations

import numpy as np

from aot.types import Float32Array, Float64Array

# A lost point is carried by at most this many neighbours, each weighted down to 1/e at this distance in working px.
NUM_CARRIERS = 16
CARRIER_REACH = 60.0
# Rounds of reweighting, and the residual in working px at which a carrier's weight is halved.
CARRIER_ROUNDS = 5
CARRIER_RESIDUAL = 2.0
# Spread in working px of a prior "no rotation, no change of scale": carriers closer together than this determine
# neither.
CARRIER_PRIOR_SPREAD = 10.0


def carry_along(xy: Float32Array, before: Float32Array, after: Float32Array) -> Float32Array:
    """Move positions (L, 2) as their nearest carriers (C, 2) moved: a local similarity transform, fitted robustly.

    Each position has its own fit (moving least squares), reweighted against carriers that move differently.
    """
    distance = np.linalg.norm(xy[:, None] - before[None], axis=2)
    near = np.argsort(distance, axis=1, kind="stable")[:, :NUM_CARRIERS]
    nearness = np.exp(-np.take_along_axis(distance, near, axis=1) / CARRIER_REACH) + 1e-3
    source, target = before[near].astype(np.float64), after[near].astype(np.float64)
    weight = nearness
    for _ in range(CARRIER_ROUNDS):
        total = weight.sum(axis=1, keepdims=True)
        source_mean = np.einsum("lc,lcd->ld", weight, source) / total
        target_mean = np.einsum("lc,lcd->ld", weight, target) / total
        factor = _fit(source - source_mean[:, None], target - target_mean[:, None], weight)
        fitted = _transformed(source - source_mean[:, None], factor[:, None]) + target_mean[:, None]
        residual = np.linalg.norm(fitted - target, axis=2)
        weight = nearness / (1 + (residual / CARRIER_RESIDUAL) ** 2)
    return np.asarray(_transformed(xy - source_mean, factor) + target_mean, dtype=np.float32)


def _fit(source: Float64Array, target: Float64Array, weight: Float64Array) -> Float64Array:
    """Rotation and scale as one complex factor (L, 2) that best maps centred sources to centred targets."""
    prior = CARRIER_PRIOR_SPREAD**2 * weight.sum(axis=1)
    size = np.einsum("lc,lcd->l", weight, source**2) + prior
    real = np.einsum("lc,lcd->l", weight, source * target) + prior
    imaginary = np.einsum("lc,lc->l", weight, source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0])
    return np.stack([real / size, imaginary / size], axis=-1)


def _transformed(xy: Float64Array, factor: Float64Array) -> Float64Array:
    """Multiply positions by a complex factor."""
    x, y, real, imaginary = xy[..., 0], xy[..., 1], factor[..., 0], factor[..., 1]
    return np.stack([real * x - imaginary * y, imaginary * x + real * y], axis=-1)
