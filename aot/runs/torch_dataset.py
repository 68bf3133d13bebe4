"""A run's results as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from aot.types import ClipResult
from aot.writing.reader import load


class ClipDataset(Dataset[Any]):
    """One item per clip; clips differ in length, so load them with `batch_size=None` or your own `collate_fn`.

    Args:
        paths: of the files `clips/<clip_id>.h5`.
        transform: result, with lazy masks → item; None: `as_tensors`.
    """

    def __init__(self, paths: Sequence[Path], transform: Callable[[ClipResult], Any] | None = None) -> None:
        self._paths = list(paths)
        self._transform = transform or as_tensors

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> Any:
        return self._transform(load(self._paths[position], masks="lazy"))


def as_tensors(result: ClipResult) -> dict[str, Any]:
    """The tracks of a result as tensors, without masks.

    Returns:
        clip_id (str); index (T,), time (T,), xy (T, N, 2), visible (T, N), visibility (T, N), confidence (T, N),
        in_mask (T, N), query (N, 3), object_id (N,).
    """
    tracks = result.tracks
    arrays = {
        "index": result.index, "time": result.time, "xy": tracks.xy, "visible": tracks.visible,
        "visibility": tracks.visibility, "confidence": tracks.confidence, "in_mask": result.in_mask,
        "query": result.query, "object_id": result.track_object_id,
    }  # fmt: skip
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return {"clip_id": str(result.attributes["clip_id"]), **tensors}
