"""`tests/lowest.txt`, from which `make test-lowest` installs, has the lower bounds of pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

# Gigabytes, and the tests of models take too long for a short selection.
NOT_INSTALLED = {"torch", "torchvision", "rf-sam-2"}
# Of the optional dependencies, those of the selected tests.
OPTIONAL = {"pyarrow", "pandas", "hypothesis", "pytest", "pytest-xdist"}


def declared() -> dict[str, tuple[int, ...]]:
    """The lower bound of every dependency in pyproject.toml, optional ones too; Python 3.10 cannot read TOML."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = text[text.index("\ndependencies = [") : text.index("\n]", text.index("\ndependencies = ["))]
    optional = text[text.index("[project.optional-dependencies]") : text.index("[project.scripts]")]
    bounds = {}
    for part, wanted in ((required, None), (optional, OPTIONAL)):
        for line in re.findall(r'"([A-Za-z][^"\[\]]*[<>][^"]*)"', part):
            requirement = Requirement(line)
            name = canonicalize_name(requirement.name)
            (bound,) = [one.version for one in requirement.specifier if one.operator == ">="]
            if name not in NOT_INSTALLED and (wanted is None or name in wanted):
                bounds[name] = padded(Version(bound))
    return bounds


def padded(version: Version) -> tuple[int, ...]:
    """The first three numbers of a version; builds of OpenCV have a fourth."""
    return (*version.release, 0, 0)[:3]


def test_the_lowest_versions_are_the_declared_ones() -> None:
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    expected = declared()
    assert expected["av"] == (17, 0, 0)
    assert len(expected) > 20
    assert {canonicalize_name(name): padded(Version(version)) for name, version in pinned.items()} == expected
