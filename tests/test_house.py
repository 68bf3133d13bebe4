"""The structure of the package: order of imports, independence of adapters, and completeness of an installed wheel."""

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
from aot.arguments import config_folder
from tests.command_line import EMBEDDED

PACKAGE = Path(aot.__file__).parent
TESTS = Path(__file__).parent
ROLES = ("datasets", "decoding", "detection", "segmentation", "query_points", "tracking", "writing")

# Groups of options, and the packages of the classes that they name.
GROUPS = {
    "dataset": "datasets",
    "decoder": "decoding",
    "detector": "detection",
    "segmenter": "segmentation",
    "query_points": "query_points",
    "tracker": "tracking",
}  # fmt: skip

# A module may import only modules of earlier entries and of its own entry.
ORDER = [
    ["aot.errors"],
    ["aot.system"],
    ["aot.coordinates", "aot.lifetimes", "aot.motion"],
    ["aot.types"],
    ["aot.paths", "aot.images", "aot.self_checks", "aot.checkpoints"],
    ["aot.retry", "aot.pages"],
    ["aot.manifest"],
    [f"aot.{role}" for role in ROLES],
    ["aot.source_frames"],
    ["aot.drawing"],
    ["aot.flow"],
    ["aot.stages"],
    ["aot.preparation"],
    ["aot.memory_plan"],
    ["aot.pipeline"],
    ["aot.config_hash"],
    ["aot.config"],
    ["aot.runs"],
    ["aot.arguments"],
    ["aot.compose"],
    ["aot.reference"],
    ["aot.evaluate", "aot.report.clip", "aot.export"],
    ["aot.launching"],
    ["aot.sweep", "aot.report", "aot.prompt", "aot.evaluate.run", "aot.export.run"],
    [f"aot.{name}.__main__" for name in "evaluate export prompt report sweep".split()],
    [f"aot.{name}" for name in "run notebook verify status cancel prompts __main__".split()],
]

# Imported on use from a later level: `ClipResult.frames` decodes the source. All stages share the types of this module,
# so that it stands on a low level; only this method, which users look for at a result, needs the later one.
ON_USE = {"aot.types": {"aot.source_frames"}}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def level_of(module: str) -> int:
    """Number of the entry of ORDER with the longest name that contains the module."""
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
def test_modules_import_only_from_earlier_levels(path: Path) -> None:
    own = module_of(path)
    below = {name for name in imports(path) - ON_USE.get(own, set()) if level_of(name) > level_of(own)}
    assert not below, f"{own} imports modules of a later level"


def test_exceptions_are_imported_in_functions_and_still_needed() -> None:
    for own, names in ON_USE.items():
        tree = ast.parse((PACKAGE.parent / f"{own.replace('.', '/')}.py").read_text())
        at_import = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
        in_functions = {
            node.module
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for node in ast.walk(function)
            if isinstance(node, ast.ImportFrom)
        }
        assert names <= in_functions - at_import, own


ADAPTERS = [path for path in MODULES if path.relative_to(PACKAGE).parts[0] in ROLES]


@pytest.mark.parametrize("path", ADAPTERS, ids=module_of)
def test_adapters_import_only_the_interfaces_of_other_roles(path: Path) -> None:
    """An adapter is a module, or a package such as `sam2` and `grabcut`, in the package of its role."""
    own_role = path.relative_to(PACKAGE).parts[0]
    others = [name for name in imports(path) if name.split(".")[1] in ROLES and name.split(".")[1] != own_role]
    assert all(name.endswith(".base") for name in others), others


@pytest.mark.parametrize(
    "path", [p for p in ADAPTERS if p.relative_to(PACKAGE).parts[0] == "segmentation"], ids=module_of
)
def test_segmenters_do_not_import_each_other(path: Path) -> None:
    adapter = ".".join(module_of(path).split(".")[:3])
    siblings = [name for name in imports(path) if name.startswith("aot.segmentation.")]
    assert all(f"{name}.".startswith((f"{adapter}.", "aot.segmentation.base.")) for name in siblings), siblings


OPTIONS = [
    (role, yaml.safe_load(path.read_text())["_target_"].rpartition(".")[2])
    for group, role in GROUPS.items()
    for path in sorted((config_folder() / group).glob("*.yaml"))
]


@pytest.mark.parametrize(("role", "part"), sorted(set(OPTIONS)), ids=str)
def test_every_part_has_the_contract_test_of_its_role(role: str, part: str) -> None:
    """A test class in tests/<role>/ inherits from a contract and constructs the part."""
    tested = [
        name.id
        for path in (TESTS / role).rglob("test_*.py")
        for cls in ast.walk(ast.parse(path.read_text()))
        if isinstance(cls, ast.ClassDef) and any(ast.unparse(base).endswith("Contract") for base in cls.bases)
        for name in ast.walk(cls)
        if isinstance(name, ast.Name)
    ]
    assert part in tested, f"no class in tests/{role}/ inherits from tests/{role}/contract.py and constructs a {part}"


def iterates_over_a_set(node: ast.expr, sets: set[str]) -> bool:
    """Whether the order of the values of an expression is that of a set; `sets`: the names of sets."""
    match node:
        case ast.Set() | ast.SetComp() | ast.Call(func=ast.Name("set" | "frozenset")):
            return True
        case ast.Name(name):
            return name in sets
        case ast.Call(func=ast.Name("sorted")):
            return False
        case ast.Call(args=inner):  # list(…), enumerate(…), dict.fromkeys(…)
            pass
        case ast.BinOp(left=left, right=right):
            inner = [left, right]
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            inner = [each.iter for each in node.generators]
        case ast.List(elts) | ast.Tuple(elts):
            inner = [each for each in elts if isinstance(each, ast.Starred)]
        case ast.Starred(value) | ast.Attribute(value=value):
            inner = [value]
        case _:
            return False
    return any(iterates_over_a_set(each, sets) for each in inner)


def parametrized_by_sets(code: str) -> list[int]:
    """Lines with a `parametrize`, or a fixture with `params`, that takes its values from a set of the same module."""
    tree = ast.parse(code)
    sets: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value and iterates_over_a_set(node.value, sets):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            sets |= {target.id for target in targets if isinstance(target, ast.Name)}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    values = [(call, call.args[1]) for call in calls if call.func.attr == "parametrize" and len(call.args) > 1]
    values += [(call, each.value) for call in calls for each in call.keywords if each.arg in ("argvalues", "params")]
    return sorted(call.lineno for call, value in values if iterates_over_a_set(value, sets))


@pytest.mark.parametrize(
    ("values", "is_ordered"),
    [
        ("{1, 2}", False), ("frozenset([1])", False), ("{n for n in [1]}", False), ("KNOWN", False),
        ("list(KNOWN)", False), ("[0, *KNOWN]", False), ("[n for n in KNOWN]", False), ("dict.fromkeys({1})", False),
        ("[1, 2]", True), ("[{1}, {2}]", True), ("{1: 2}", True), ("sorted(KNOWN)", True),
        ("[n for n in [1] if n in KNOWN]", True), ("OTHERS", True),
    ],
)  # fmt: skip
def test_sets_are_found(values: str, is_ordered: bool) -> None:
    code = f"KNOWN = {{1}} | {{2}}\nOTHERS = sorted(KNOWN)\n@pytest.mark.parametrize('n', {values})\ndef f(n): ..."
    assert parametrized_by_sets(code) == ([] if is_ordered else [3])
    assert parametrized_by_sets(code.replace("mark.parametrize('n', ", "fixture(params=")) == (
        [] if is_ordered else [3]
    )


def test_tests_have_the_same_order_in_every_process() -> None:
    """The order of a set of strings or classes differs between processes, and pytest-xdist refuses to run them."""
    found = {str(path.relative_to(TESTS)): parametrized_by_sets(path.read_text()) for path in TESTS.rglob("*.py")}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.slow
def test_an_installed_wheel_is_complete(demo_root: Path, tmp_path: Path) -> None:
    build = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=PACKAGE.parent, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "aot.run", "dataset=demo", "dataset.include=[late]", "frame_interval=8"),
            *(*EMBEDDED, f"dataset.root={demo_root}"),
        ],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "1 clip: 1 done" in run.stdout
    assert not (tmp_path / "conf").exists()
