"""What fuzzing has found stays found, and a short search in every run of the tests."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import NAMES
from tests.fuzz.__main__ import FINDINGS, mutated
from tests.fuzz.targets import TARGETS, seeds

FOUND = sorted(path for path in FINDINGS.glob("*/*") if path.parent.name in NAMES)
SHORT_SEARCH = {
    "manifest": 300, "overrides": 20, "results": 150, "video": 100, "pickled": 300, "tree": 300, "imported": 300,
}  # fmt: skip


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_is_mended(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_right_inputs_and_changed_ones(name: str) -> None:
    """The same changes every time: new ones are for `python -m tests.fuzz`."""
    given = seeds(name)
    assert TARGETS[name](given[0])
    rng = random.Random(20261124)
    for _ in range(SHORT_SEARCH[name]):
        TARGETS[name](mutated(rng.choice(given), rng))
