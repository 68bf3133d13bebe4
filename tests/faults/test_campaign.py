"""A short fault campaign; `python -m tests.faults.campaign` runs the full one."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.faults.campaign import FAULTS

pytestmark = pytest.mark.slow

FEW = dict.fromkeys(FAULTS, 1) | {"kill": 3, "damage": 2}
NEEDS_ROOT = ("full_disk", "read_only")


@pytest.mark.parametrize("name", FAULTS)
def test_no_clip_is_lost(name: str, tmp_path: Path) -> None:
    if name in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    if name == "io_errors" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    outcome = FAULTS[name](tmp_path / "trial", FEW[name], random.Random(20261124))
    assert (outcome.injected, outcome.survived, outcome.lost) == (FEW[name], FEW[name], [])
