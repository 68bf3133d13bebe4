"""Fixtures of the SAM 2 tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny model."""
    from tests.segmentation.sam2_models import save_random_weights  # imports torch, which other segmenters do not need

    return save_random_weights(tmp_path_factory.mktemp("weights") / "random.pt")
