"""SAM 2 with random weights satisfies the contract of its role."""

from __future__ import annotations

from pathlib import Path

import pytest

from aot.segmentation.base import Segmenter
from aot.segmentation.sam2 import Sam2Segmenter
from tests.segmentation.contract import SegmenterContract

pytestmark = pytest.mark.usefixtures("one_thread")


class TestContract(SegmenterContract):
    @pytest.fixture(params=[True, False], ids=["all frames", "prompt frames"])
    def segmenter(self, weights: Path, request: pytest.FixtureRequest) -> Segmenter:
        return Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128, propagate=request.param)
