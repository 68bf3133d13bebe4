"""A run's results as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from aot.types import ClipResult
from aot.writing.reader import load


class ClipDataset(Dataset[Any]):
    """One item per clip; clips differ in length, so load them with `batch_size=None` or your own `collate_fn`.

    Args:
        paths: of the files `clips/<clip_id>.h5`.
        transform: result, with lazy masks → item; None: `ClipResult.to_torch`.
    """

    def __init__(self, paths: Sequence[Path], transform: Callable[[ClipResult], Any] | None = None) -> None:
        self._paths = list(paths)
        self._transform = transform or ClipResult.to_torch

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> Any:
        return self._transform(load(self._paths[position], masks="lazy"))
