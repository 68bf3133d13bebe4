"""Tests of reading a dataset's clips and ground truth through `aot.datasets.base`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import pytest

from aot.datasets.base import Dataset, read_clips, read_ground_truth
from aot.errors import DatasetError


class UnreadableDataset:
    """A dataset whose files the operating system refuses to read."""

    def clips(self) -> NoReturn:
        raise PermissionError(13, "Permission denied", "/data/DAVIS/JPEGImages")

    def ground_truth(self, clip_id: str) -> NoReturn:
        raise PermissionError(13, "Permission denied", f"/data/DAVIS/Annotations/{clip_id}")


@pytest.mark.parametrize(
    ("read", "path"),
    [
        (read_clips, "/data/DAVIS/JPEGImages"),
        (lambda dataset: read_ground_truth(dataset, "bear"), "/data/DAVIS/Annotations/bear"),
    ],
    ids=["clips", "ground_truth"],
)
def test_unreadable_files_are_dataset_errors(read: Callable[[Dataset], Any], path: str) -> None:
    with pytest.raises(DatasetError, match=f"^{path} cannot be read: no permission; check the permissions"):
        read(UnreadableDataset())
