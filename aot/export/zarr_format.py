"""Write arrays in version 2 of the Zarr format, each as one chunk, without the library of that name."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def write_group(folder: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
    """Write a group with arrays; a frame of a video is a chunk of its own.

    Args:
        folder: exists; becomes the group.
        arrays: by name.
        attributes: of the group, as JSON.
    """
    _write_json(folder / ".zgroup", {"zarr_format": 2})
    _write_json(folder / ".zattrs", dict(attributes))
    for name, array in arrays.items():
        below = folder / name
        below.mkdir()
        # Compressors address at most 2 GiB, so videos are divided along their frames.
        chunks = (1, *array.shape[1:]) if array.ndim == 4 else array.shape
        _write_json(
            below / ".zarray",
            {
                "zarr_format": 2, "shape": array.shape, "chunks": [max(1, size) for size in chunks],
                "dtype": array.dtype.str, "compressor": {"id": "zlib", "level": 1}, "fill_value": None, "order": "C",
                "filters": None,
            },
        )  # fmt: skip
        rest = ["0"] * (array.ndim - 1)
        parts = array if array.ndim == 4 else array[None]
        for number, part in enumerate(parts):
            (below / ".".join([str(number), *rest])).write_bytes(zlib.compress(np.ascontiguousarray(part).tobytes(), 1))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
