"""Small models with the weights of the golden files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aot.tracking.tapnext import TAPNext, load_model
from aot.types import Float32Array
from tests.tracking.tapnext.weights import golden_weights, shapes_of

HERE = Path(__file__).parent / "golden"
SMALL: dict[str, Any] = {"image_size": 64, "num_heads": 6, "input_resolution": 64}
"""Options of the tracker and of `load_model` for `small_weights`."""


def small_weights(*, depth: int = 1) -> dict[str, torch.Tensor]:
    """Weights of a network with the smallest size of the golden files; `SMALL` gives its other sizes."""
    return golden_weights(_shapes(width=96, depth=depth, num_heads=6, image_size=64), seed=0)


def released_weights(*, depth: int = 12) -> dict[str, torch.Tensor]:
    """Weights of the released size, with fewer blocks if wanted."""
    return golden_weights(_shapes(width=768, depth=depth, num_heads=12, image_size=256), seed=0)


def golden_state(expected: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights with which a golden file was computed."""
    shapes = _shapes(
        width=int(expected["width"]),
        depth=int(expected["depth"]),
        num_heads=int(expected["num_heads"]),
        image_size=int(expected["image_size"][0]),
    )
    return golden_weights(shapes, int(expected["seed"]))


def golden_model(expected: Mapping[str, Any], *, input_resolution: int, **options: Any) -> TAPNext:
    """The model with which a golden file was computed."""
    return load_model(
        golden_state(expected),
        image_size=int(expected["image_size"][0]),
        num_heads=int(expected["num_heads"]),
        input_resolution=input_resolution,
        **{"precision": "fp32"} | options,
    )


def _shapes(*, width: int, depth: int, num_heads: int, image_size: int) -> dict[str, tuple[int, ...]]:
    lines = (HERE / "state_dict_shapes.txt").read_text().splitlines()
    return shapes_of(lines, width=width, depth=depth, num_heads=num_heads, num_tokens=(image_size // 8) ** 2)


def points_of(expected: Mapping[str, Any]) -> Float32Array:
    """(N, 3) row, x, y of a golden file's queries in source px, whose centres lie at integers."""
    height, width = expected["video"].shape[1:3]
    row, y, x = expected["queries"].T
    size = int(expected["image_size"][0])
    return np.stack([row, x * width / size - 0.5, y * height / size - 0.5], axis=1).astype(np.float32)
