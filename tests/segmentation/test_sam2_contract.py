"""SAM 2 on random weights keeps the role's contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from aot.segmentation.base import Segmenter
from aot.segmentation.sam2 import Sam2Segmenter
from tests.segmentation.contract import SegmenterContract
from tests.segmentation.sam2_models import save_random_weights


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Pictures this small gain nothing from threads, and threads that wait for each other lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_weights(tmp_path_factory.mktemp("weights") / "random.pt")


class TestContract(SegmenterContract):
    @pytest.fixture(params=[True, False], ids=["all frames", "prompt frames"])
    def segmenter(self, weights: Path, request: pytest.FixtureRequest) -> Segmenter:
        return Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128, propagate=request.param)
