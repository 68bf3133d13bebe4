"""Fixtures of the SAM 2 tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aot.segmentation.sam2 import Sam2Segmenter


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny model."""
    from tests.segmentation.sam2_models import save_random_weights  # imports torch, which other segmenters do not need

    return save_random_weights(tmp_path_factory.mktemp("weights") / "random.pt")


@pytest.fixture(scope="session")
def ours(weights: Path) -> Sam2Segmenter:
    """A segmenter whose model is built once for all tests, and encodes equal images once."""
    from aot.segmentation.sam2 import Sam2Segmenter
    from tests.segmentation.sam2_models import remember_features

    segmenter = Sam2Segmenter(size="tiny", checkpoint=weights, image_size=128)
    remember_features(segmenter._loaded())
    return segmenter
