"""The house's order: imports point up the list, adapters keep to themselves, and an installed wheel is whole."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import aot
from aot.compose import config_folder
from tests.command_line import EMBEDDED

PACKAGE = Path(aot.__file__).parent
TESTS = Path(__file__).parent
ROLES = ("datasets", "decoding", "segmentation", "query_points", "tracking", "writing")

# Groups of options, and the rooms of the classes that they name.
GROUPS = {
    "dataset": "datasets",
    "segmenter": "segmentation",
    "query_points": "query_points",
    "tracker": "tracking",
}  # fmt: skip

# A module may import what stands in an earlier entry, or in its own.
ORDER = [
    ["aot.errors"],
    ["aot.system"],
    ["aot.types"],
    ["aot.paths", "aot.images", "aot.self_checks", "aot.checkpoints"],
    ["aot.retry", "aot.pages"],
    ["aot.manifest"],
    [f"aot.{role}" for role in ROLES],
    ["aot.drawing"],
    ["aot.pipeline"],
    ["aot.config_hash"],
    ["aot.config"],
    ["aot.runs"],
    ["aot.compose"],
    ["aot.reference"],
    ["aot.evaluate", "aot.report.clip", "aot.export"],
    ["aot.launching"],
    ["aot.sweep", "aot.report", "aot.prompt", "aot.evaluate.run", "aot.export.run"],
    [f"aot.{name}.__main__" for name in "evaluate export prompt report sweep".split()],
    [f"aot.{name}" for name in "run verify status cancel prompts __main__".split()],
]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def floor(module: str) -> int:
    """The entry with the longest name that the module has or lies under."""
    matches = [
        (len(name), number)
        for number, names in enumerate(ORDER)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert matches, f"{module} has no place in ORDER"
    return max(matches)[1]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    return {name for name in found if name.startswith("aot.")}


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if module_of(path) != "aot" and "conf" not in path.parts]


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_imports_point_up_only(path: Path) -> None:
    own = module_of(path)
    below = {name for name in imports(path) if floor(name) > floor(own)}
    assert not below, f"{own} imports what stands below it"


ADAPTERS = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in ROLES]


@pytest.mark.parametrize("path", ADAPTERS, ids=module_of)
def test_an_adapter_imports_of_other_roles_only_their_interface(path: Path) -> None:
    """An adapter is a module of its role or a package of modules there, such as `sam2` and `grabcut`."""
    own_role = path.relative_to(PACKAGE).parts[0]
    others = [name for name in imports(path) if name.split(".")[1] in ROLES and name.split(".")[1] != own_role]
    assert all(name.endswith(".base") for name in others), others


@pytest.mark.parametrize(
    "path", [p for p in ADAPTERS if p.relative_to(PACKAGE).parts[0] == "segmentation"], ids=module_of
)
def test_a_segmenter_imports_no_other_segmenter(path: Path) -> None:
    adapter = ".".join(module_of(path).split(".")[:3])
    siblings = [name for name in imports(path) if name.startswith("aot.segmentation.")]
    assert all(f"{name}.".startswith((f"{adapter}.", "aot.segmentation.base.")) for name in siblings), siblings


OPTIONS = [
    (role, yaml.safe_load(path.read_text())["_target_"].rpartition(".")[2])
    for group, role in GROUPS.items()
    for path in sorted((config_folder() / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("role", "part"), sorted(set(OPTIONS)), ids=str)
def test_every_part_inherits_its_roles_contract_test(role: str, part: str) -> None:
    """A test class in tests/<role>/ that inherits a contract makes the part."""
    tested = [
        name.id
        for path in (TESTS / role).rglob("test_*.py")
        for cls in ast.walk(ast.parse(path.read_text()))
        if isinstance(cls, ast.ClassDef) and any(ast.unparse(base).endswith("Contract") for base in cls.bases)
        for name in ast.walk(cls)
        if isinstance(name, ast.Name)
    ]
    assert part in tested, f"no class in tests/{role}/ inherits from tests/{role}/contract.py and makes a {part}"


@pytest.mark.slow
def test_an_installed_wheel_is_whole(tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=PACKAGE.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "aot.run", "dataset=demo", "dataset.include=[late]", "frame_interval=8"),
            *EMBEDDED,
        ],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "1 clips: 1 done" in run.stdout
    assert not (tmp_path / "conf").exists()
