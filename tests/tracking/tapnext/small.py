"""Small models with the weights of the golden files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aot.tracking.tapnext import TAPNext, load_model
from aot.types import Float32Array
from tests.tracking.tapnext.weights import golden_weights, shapes_of

HERE = Path(__file__).parent / "golden"


def golden_model(expected: Mapping[str, Any], *, input_resolution: int, **options: Any) -> TAPNext:
    """The model with which a golden file was computed."""
    image_size, num_heads = int(expected["image_size"][0]), int(expected["num_heads"])
    shapes = shapes_of(
        (HERE / "state_dict_shapes.txt").read_text().splitlines(),
        width=int(expected["width"]),
        depth=int(expected["depth"]),
        num_heads=num_heads,
        num_tokens=(image_size // 8) ** 2,
    )
    return load_model(
        golden_weights(shapes, int(expected["seed"])),
        image_size=image_size,
        num_heads=num_heads,
        input_resolution=input_resolution,
        **{"precision": "fp32"} | options,
    )


def points_of(expected: Mapping[str, Any]) -> Float32Array:
    """(N, 3) row, x, y of a golden file's queries in source px, whose centres lie at integers."""
    height, width = expected["video"].shape[1:3]
    row, y, x = expected["queries"].T
    size = int(expected["image_size"][0])
    return np.stack([row, x * width / size - 0.5, y * height / size - 0.5], axis=1).astype(np.float32)
