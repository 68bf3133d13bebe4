from __future__ import annotations

from pathlib import Path

import pytest

from aot.datasets.demo.folder import generate_demo


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The complete demo dataset, rendered once; tests must not change it."""
    root = tmp_path_factory.mktemp("demo") / "demo"
    generate_demo(root)
    return root
