"""Fixtures for the tests of CoTracker3: synthetic weights, and models for small frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aot.tracking.cotracker3 import CoTracker3

# (H, W) in px of the models, to which all frames are resized.
RESOLUTION = (48, 64)


@pytest.fixture(scope="session")
def offline() -> CoTracker3:
    """The engine with small networks."""
    from tests.tracking.cotracker3.small import small_model

    return small_model("offline", RESOLUTION)


@pytest.fixture(scope="session")
def online() -> CoTracker3:
    """The engine with small networks."""
    from tests.tracking.cotracker3.small import small_model

    return small_model("online", RESOLUTION)


@pytest.fixture(scope="session")
def large() -> CoTracker3:
    """The released network, offline, with synthetic weights."""
    from aot.tracking.cotracker3 import load_model
    from tests.tracking.cotracker3.weights import golden_weights

    return load_model(golden_weights(), resolution=RESOLUTION)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of synthetic weights, by mode."""
    import torch

    from tests.tracking.cotracker3.weights import golden_weights

    folder = tmp_path_factory.mktemp("checkpoints")
    files = {mode: folder / f"{mode}.pth" for mode in ("offline", "online")}
    for mode, path in files.items():
        torch.save(dict(golden_weights(mode=mode)), path)
    return files
