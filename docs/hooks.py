"""What the documentation takes from the code: the configuration reference, from the YAML files and the constructors.

Run by mkdocs; `configuration()` is what a test looks at.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from aot.compose import config_folder
from aot.config import GROUPS, Ladder, Output, RunConfig, Selection, Shard
from aot.drawing.style import OverlayStyle

MARKER = "<!-- configuration reference -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Mkdocs asks every page's text of us."""
    return markdown.replace(MARKER, configuration()) if MARKER in markdown else markdown


def configuration() -> str:
    """Every group, option and key: its type, default and meaning, as Markdown."""
    parts = ["## Run-level keys\n", _table(_rows(config_folder() / "config.yaml", _run_level_hints()))]
    for group in GROUPS:
        parts.append(f"## {group}\n")
        for path in sorted((config_folder() / group).glob("*.yaml")):
            text = path.read_text(encoding="utf-8")
            hints = _hints(yaml.safe_load(text)["_target_"])
            about = text.splitlines()[0].removeprefix("#").strip()
            parts += [f"### `{group}={path.stem}`\n", f"{about}\n", _table(_rows(path, hints, f"{group}."))]
    return "\n".join(parts)


def _rows(path: Path, hints: dict[str, Any], above: str = "") -> list[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every commented key; a nested key with the keys above it."""
    rows: list[tuple[str, str, str, str]] = []
    parents: list[tuple[int, str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = re.match(r"( *)(\w+):\s*([^\s#].*?)?(?:\s+# *(.*))?$", line)
        if not found:
            continue
        indent, key, default, meaning = len(found[1]), found[2], found[3], found[4] or ""
        parents = [parent for parent in parents if parent[0] < indent] + [(indent, key)]
        name = ".".join(parent for _, parent in parents)
        if default and not name.startswith(("_target_", "hydra")):
            rows.append((f"{above}{name}", _type_name(hints.get(name)), default, meaning))
    return rows


def _run_level_hints() -> dict[str, Any]:
    models = {"": RunConfig, "dataset.": Selection, "output.": Output, "ladder.": Ladder, "overlay.": OverlayStyle}
    return {
        f"{above}{name}": Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        for above, model in models.items()
        for name, field in model.model_fields.items()
    }


def _hints(target: str) -> dict[str, Any]:
    module, _, name = target.rpartition(".")
    constructor = getattr(importlib.import_module(module), name)
    names = inspect.signature(constructor).parameters
    hints = get_type_hints(constructor.__init__, include_extras=True)
    return {name: hints.get(name) for name in names}


def _type_name(hint: Any) -> str:
    """A type as a user reads it, range included."""
    if hint is None:
        return ""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        ranges = [_range_name(limit) for limit in inner[1:]]
        return " ".join([_type_name(inner[0]), *filter(None, ranges)])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join("null" if item is NoneType else _type_name(item) for item in inner)
    if origin is not None:
        return "keys and values" if origin is dict else "list"
    names = {Shard: "NUMBER/COUNT", Path: "path", str: "text", int: "integer", float: "number", bool: "true, false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _range_name(limit: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(f"{sign} {getattr(limit, name)}" for name, sign in signs.items() if hasattr(limit, name))


def _table(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return ""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key, kind, default, meaning in rows:
        cells = [f"`{key}`", kind, f"`{default}`", meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])
