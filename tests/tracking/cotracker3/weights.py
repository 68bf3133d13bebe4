"""Reproducible weights, with which the golden files were computed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from types import MappingProxyType

import numpy as np
import torch

from aot.tracking.cotracker3.embeddings import time_table
from aot.tracking.cotracker3.model import CoTracker3
from aot.tracking.cotracker3.sizes import WINDOW_LEN, Mode


@lru_cache
def golden_weights(
    seed: int = 0, *, mode: Mode = "offline", window_len: int | None = None
) -> Mapping[str, torch.Tensor]:
    """A complete state dict of CoTracker3 with random weights."""
    return MappingProxyType({**_network_weights(seed), "time_emb": time_table(window_len or WINDOW_LEN[mode])})


@lru_cache
def _network_weights(seed: int) -> Mapping[str, torch.Tensor]:
    """All weights but the time embedding, the only part in which the two modes differ; in the network's order."""
    empty = CoTracker3(mode="offline", window_len=1, resolution=(384, 512), precision="fp32").state_dict()
    return {key: torch.from_numpy(_drawn(key, tuple(value.shape), seed)) for key, value in empty.items()}


def _drawn(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    drawn = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape)
    if key.endswith("bias"):
        drawn *= 0.02
    elif "virual_tracks" not in key:
        drawn *= (1 / prod(shape[1:])) ** 0.5
    if "flow_head" in key:
        drawn *= 0.15
    return drawn.astype(np.float32)


# With the golden weights nearly all probabilities are 1 (the logits of confidence are 4.8 ± 0.8 after two iterations
# and grow), so that an error in their logits hardly changes them. These gains and biases of the layer that updates
# visibility and confidence make the logits 0 ± 1.6 after two iterations: offline in three frames, online in two windows
# of four frames.
_SPREAD: dict[Mode, tuple[tuple[float, float], tuple[float, float]]] = {
    "offline": ((1.2, 2.0), (-1.6, -4.8)),
    "online": ((1.0, 1.5), (1.7, -1.5)),
}


@lru_cache
def spread_weights(mode: Mode, window_len: int | None = None) -> Mapping[str, torch.Tensor]:
    """The golden weights, changed so that visibility and confidence are spread between 0 and 1."""
    weights, layer = golden_weights(mode=mode, window_len=window_len), "updateformer.vis_conf_head"
    gain, bias = (torch.tensor(values) for values in _SPREAD[mode])
    changed = {f"{layer}.weight": weights[f"{layer}.weight"] * gain[:, None], f"{layer}.bias": bias}
    return MappingProxyType({**weights, **changed})
