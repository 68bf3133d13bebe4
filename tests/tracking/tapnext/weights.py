"""Reproducible weights, with which the golden files were computed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from math import prod

import numpy as np
import torch

_NOISE = {"bias", "in_proj_bias", "b", "scale"}
_TOKENS = {"mask_token", "unknown_token", "point_query_token", "image_pos_emb"}


def shapes_of(
    lines: list[str], *, width: int, depth: int, num_heads: int, num_tokens: int
) -> dict[str, tuple[int, ...]]:
    """Key → shape for a network of this size, from the shapes of the released one; without the table of positions."""
    sizes = {768: width, 2304: 3 * width, 3072: 4 * width, 12: num_heads, 64: width // num_heads, 1024: num_tokens}
    shapes = {}
    for line in lines:
        key, text = line.split(" ", 1)
        number = re.match(r"blocks\.(\d+)\.", key)
        if key != "query_pos_embed" and not (number and int(number[1]) >= depth):
            shapes[key] = tuple(sizes.get(int(size), int(size)) for size in re.findall(r"\d+", text))
    return shapes


def golden_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(_drawn(key, shape, seed)) for key, shape in shapes.items()}


def _drawn(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    drawn = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if last in _NOISE:
        drawn *= 0.02
    elif last == "weight" and len(shape) == 1:
        drawn = 1 + 0.02 * drawn
    elif last == "a_param" or last in _TOKENS:
        drawn *= 0.5
    elif last == "w":
        drawn *= 0.4 if len(shape) == 2 else shape[1] ** -0.5
    else:
        drawn *= prod(shape[1:]) ** -0.5
    if key in ("coordinate_head.6.weight", "visible_head.6.weight"):
        drawn *= 6
    return drawn.astype(np.float32)
