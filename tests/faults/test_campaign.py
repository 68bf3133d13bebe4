"""A short fault campaign, and the complete one for each fault; `python -m tests.faults.campaign` injects more."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FIGURE
from tests.faults.campaign import FAULTS, Size

# In one process: the run without faults is made once per process.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("campaign")]

FEW = {"num_clips": 5, "shortest": 5, "num_workers": 1}
SHORT = dict.fromkeys(["full_disk", "twice", "damage"], Size(1, **FEW)) | {"kill": Size(2, **FEW)}
COMPLETE = dict.fromkeys(FAULTS, Size(10)) | {"kill": Size(200)}
NEEDS_ROOT = ("full_disk", "read_only")


@pytest.mark.parametrize("name", SHORT)
def test_no_clip_is_lost(name: str, tmp_path: Path) -> None:
    """The other faults: test_local (SIGTERM, hangs, crashes), tests/writing (failing writes and disks)."""
    inject(name, SHORT[name], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", COMPLETE)
def test_no_clip_is_lost_in_the_complete_campaign(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Quick counterpart: test_no_clip_is_lost."""
    inject(name, COMPLETE[name], tmp_path)
    record_property(FIGURE, f"{COMPLETE[name].times} faults survived, no clip lost")


def inject(name: str, size: Size, folder: Path) -> None:
    """Inject one kind of fault; every result must survive it, and no clip may be lost."""
    if name in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("needs root to mount a small disk")
    if name == "io_errors" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt-get install gcc libc6-dev")
    outcome = FAULTS[name](folder / "trial", size, random.Random(20261124))
    assert (outcome.injected, outcome.survived, outcome.lost) == (size.times, size.times, [])
