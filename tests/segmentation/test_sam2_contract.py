"""SAM 2 with random weights satisfies the contract of its role."""

from __future__ import annotations

from pathlib import Path

import pytest

from aot.segmentation.base import Segmenter
from aot.segmentation.sam2 import Sam2Segmenter
from tests.segmentation.contract import SegmenterContract

pytestmark = pytest.mark.usefixtures("one_thread")


class TestContract(SegmenterContract):
    @pytest.fixture(params=[pytest.param(True, marks=pytest.mark.slow), False], ids=["all frames", "prompt frames"])
    def segmenter(self, weights: Path, ours: Sam2Segmenter, request: pytest.FixtureRequest) -> Segmenter:
        segmenter = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128, propagate=request.param)
        segmenter._model = ours._loaded()  # takes most of the time of a test to build
        return segmenter
