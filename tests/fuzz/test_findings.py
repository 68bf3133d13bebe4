"""Regression tests for all fuzzing findings, and a short search for new ones."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import FIGURE
from tests.fuzz import NAMES
from tests.fuzz.__main__ import FINDINGS, mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

SAVED = [
    pytest.param(path, marks=pytest.mark.long if path.name.startswith("hang-") else [])
    for path in sorted(FINDINGS.glob("*/*"))
    if path.parent.name in NAMES
]
NUM_MUTATIONS = {
    "manifest": 300, "overrides": 20, "results": 150, "video": 100, "pickled": 300, "tree": 300, "imported": 300,
}  # fmt: skip


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_finding_is_handled(path: Path) -> None:
    """Quick counterpart of the file that hangs: test_file_that_hangs_hdf5_does_not_stop_the_check (test_verify.py)."""
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n == "overrides" else []) for n in NAMES])
def test_valid_and_mutated_inputs(name: str) -> None:
    """The same mutations in every run; `python -m tests.fuzz` tries new ones."""
    inputs = seeds(name)
    assert TARGETS[name](inputs[0])
    rng = random.Random(20261124)
    for _ in range(NUM_MUTATIONS[name]):
        TARGETS[name](mutate(rng.choice(inputs), rng))


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_search_for_new_findings(name: str, record_property: Callable[[str, object], None]) -> None:
    """Quick counterpart: test_valid_and_mutated_inputs."""
    seed = random.randrange(1000)
    command = [sys.executable, "-m", "tests.fuzz", name, "--unguided", "--minutes", "3", "--seed", str(seed)]
    search = subprocess.run(command, capture_output=True, text=True, check=False)
    assert search.returncode == 0, search.stdout + search.stderr
    record_property(FIGURE, f"{search.stdout.strip()}, seed {seed}")
