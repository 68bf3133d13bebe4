"""What the tests of SAM 2 share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Pictures this small gain nothing from threads, and threads that wait for each other lose much."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny model."""
    from tests.segmentation.sam2_models import save_random_weights  # brings torch, which other segmenters do without

    return save_random_weights(tmp_path_factory.mktemp("weights") / "random.pt")
