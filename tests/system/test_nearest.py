"""Suggestions for names and paths that do not exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import aot
from aot.system.nearest import nearest_names, path_suggestion, suggestion

PACKAGE = Path(aot.__file__).parent


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("davs", ("davis", "coco"), "did you mean davis?"),
        ("DAVIS", ("davis", "coco"), "did you mean davis?"),
        ("sa-v", ("sa_v", "coco"), "did you mean sa_v?"),
        ("clip1", ("clip10", "clip11", "other"), "did you mean clip11 or clip10?"),
        ("zzz", ("davis", "coco"), "expected one of davis, coco"),
    ],
)
def test_suggestion(name: str, known: tuple[str, ...], expected: str) -> None:
    assert suggestion(name, known) == expected


def test_other_clause_where_no_name_is_similar() -> None:
    assert suggestion("zzz", ["davis"], otherwise="it has 1 clip") == "it has 1 clip"


def test_at_most_three_names_are_suggested() -> None:
    assert len(nearest_names("clip", [f"clip{number}" for number in range(9)])) == 3


def test_nearest_path(tmp_path: Path) -> None:
    (tmp_path / "clips" / "day1").mkdir(parents=True)
    assert path_suggestion(tmp_path / "Clisp" / "day1") == f"; did you mean {tmp_path / 'clips' / 'day1'}?"
    assert path_suggestion(tmp_path / "zzz") == ""


OTHERS = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "nearest.py"]


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_all_messages_get_their_suggestions_from_one_place(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    assert "get_close_matches" not in {node.id for node in nodes if isinstance(node, ast.Name)}
    parts = [part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values]
    assert not [part.value for part in parts if isinstance(part, ast.Constant) and "did you mean" in str(part.value)]
