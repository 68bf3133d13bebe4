"""Read and check a manifest in YAML or JSON; all errors are reported together."""

from __future__ import annotations

import reprlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from aot.errors import ConfigError, PromptError
from aot.manifest.schema import ClipEntry, Manifest, ObjectEntry, contradictions
from aot.system.nearest import suggestion
from aot.system.text import counted
from aot.system.text_files import MalformedFile, parse_json, read_text
from aot.system.yaml_files import StrictLoader, parse_yaml

_EXAMPLE = "clips: {CLIP_ID: {objects: [{id: 1, box: [x0, y0, x1, y1]}]}}"
_EXAMPLE_JSON = '{"clips": {"CLIP_ID": {"objects": [{"id": 1, "box": [x0, y0, x1, y1]}]}}}'


class MissingManifest(ConfigError):
    """The manifest file does not exist."""


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest, YAML or JSON.

    Raises:
        ConfigError: the file cannot be read or is not a valid manifest; the message lists every error with
            clip, object and reason.
    """
    return parse_manifest(_read_text(path), path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Check the text of a manifest.

    Args:
        text: JSON if `path` ends in .json, otherwise YAML.
        path: named in messages.
    Raises:
        ConfigError: as `load_manifest`.
    """
    entries, errors = _parse(text, path)
    refuse(path, errors)
    return Manifest(clips=entries)


def read_entries(path: Path) -> tuple[dict[str, ClipEntry], list[str]]:
    """Read the valid parts of a manifest.

    Returns:
        All entries by clip id or pattern, each with only its valid objects; and all errors.
    Raises:
        ConfigError: the file cannot be read, or is neither YAML nor JSON.
    """
    return _parse(_read_text(path), path)


def check_entry(clip_id: str, objects: Any) -> ClipEntry:
    """Check the objects of one clip, given as parsed JSON.

    Raises:
        PromptError: lists all errors.
    """
    entries, errors = _checked({"clips": {clip_id: {"objects": objects}}})
    if errors:
        raise PromptError("; ".join(errors))
    return entries[clip_id]


def errors_in(content: Any) -> list[str]:
    """All errors in the parsed content of a manifest."""
    return _checked(content)[1]


def object_errors(error: ValidationError, given: Mapping[str, Any]) -> list[str]:
    """The errors that pydantic found in one object, one `field: reason` per error."""
    return list(dict.fromkeys(_describe_field(detail, given) for detail in error.errors()))


def _read_text(path: Path) -> str:
    try:
        return read_text(path)
    except MalformedFile as exc:
        if isinstance(exc.__cause__, FileNotFoundError):
            raise MissingManifest(f"prompt manifest {path} does not exist; expected a YAML or JSON file") from exc
        raise ConfigError(
            f"{exc.about(f'prompt manifest {path}')}; expected a YAML or JSON file in UTF-8; "
            f"dataset.prompts=FILE names another one"
        ) from exc


def _parse(text: str, path: Path) -> tuple[dict[str, ClipEntry], list[str]]:
    """As `read_entries`."""
    is_json = path.suffix == ".json"
    content = None
    if text.strip():
        try:
            content = parse_json(text, refuse_repeats=True) if is_json else parse_yaml(text, _ManifestLoader)
        except MalformedFile as exc:
            raise ConfigError(exc.about(f"prompt manifest {path}")) from exc
    if content is None:
        problem = "contains no entry" if text.strip() else "is empty"
        raise ConfigError(
            f"prompt manifest {path} {problem}; expected the objects of each clip, such as "
            f"{_EXAMPLE_JSON if is_json else _EXAMPLE}; `python -m aot.prompt` writes it from clicks"
        )
    return _checked(content)


def _checked(content: Any) -> tuple[dict[str, ClipEntry], list[str]]:
    """As `read_entries`, for parsed content."""
    try:
        return dict(Manifest.model_validate(content).clips), []
    except ValidationError as exc:
        found = [detail for detail in exc.errors() if not _is_reported_elsewhere(detail)]
    clips = content.get("clips") if isinstance(content, dict) else None
    given: dict[str, Any] = clips if isinstance(clips, dict) else {}
    errors = [_describe(detail, given) for detail in found]
    # pydantic checks for contradictions only in entries without other errors.
    entries = {key: ClipEntry.model_construct(objects=tuple(_valid_objects(entry))) for key, entry in given.items()}
    for key, entry in entries.items():
        errors += [f"clip {key!r}, {error}" for error in contradictions(entry.objects)]
    return entries, list(dict.fromkeys(errors))


def _valid_objects(entry: Any) -> Iterator[ObjectEntry]:
    """The objects of an entry that are individually valid."""
    objects = entry.get("objects") if isinstance(entry, dict) else None
    for item in objects if isinstance(objects, list) else []:
        with suppress(ValidationError):
            yield ObjectEntry.model_validate(item)


def _is_reported_elsewhere(error: Any) -> bool:
    """Whether a pydantic error is a contradiction (reported separately) or only a consequence of invalid objects."""
    is_contradiction = error["type"] == "value_error" and len(error["loc"]) == len(("clips", "a clip", "objects"))
    return is_contradiction or (error["type"] == "too_short" and len(error["input"]) > 0)


def refuse(path: Path, errors: Sequence[str]) -> None:
    """Raise a ConfigError that lists the errors, if there are any."""
    if errors:
        lines = "\n  ".join(errors)
        raise ConfigError(f"prompt manifest {path}: {counted(len(errors), 'error')}\n  {lines}")


# The expected value at each depth of a manifest, down to an object.
_EXPECTED = (
    "a mapping with the key clips",
    "clip ids or patterns, each with its objects",
    "a mapping with the key objects",
    "a list of objects",
    "a mapping such as {id: 1, box: [x0, y0, x1, y1]}",
)


def _describe(error: Any, given: Mapping[str, Any]) -> str:
    """One pydantic error as clip, object, field, reason and value."""
    where = list(error["loc"])
    words = []
    if where[:1] == ["clips"] and len(where) > 1:
        words.append(f"clip {where[1]!r}")
    if where[2:3] == ["objects"] and len(where) > 3:
        entry = given[where[1]]["objects"][where[3]]
        named = entry.get("id") if isinstance(entry, dict) else None
        words.append(f"object {named}" if isinstance(named, int) else f"entry {where[3] + 1}")
        if isinstance(entry, dict):
            return ", ".join([*words, _describe_field({**error, "loc": where[4:]}, entry)])
    if error["type"] == "extra_forbidden":
        words.append(str(where[-1]))
        reason = _unknown_key(words[-1], Manifest if len(where) == 1 else ClipEntry)
    elif error["type"] == "missing":
        reason = f"expected {_EXPECTED[len(where) - 1]}"
    else:
        words += where[-1:] if len(where) in (1, 3) else []
        reason = f"expected {_EXPECTED[len(where)]}, got {reprlib.repr(error['input'])}"
    return f"{', '.join(words) or 'file'}: {reason}"


def _describe_field(error: Any, entry: Mapping[str, Any]) -> str:
    """One pydantic error in an object as field, reason and value."""
    if error["type"] == "value_error":  # raised in schema.py, and names the field
        return str(error["msg"]).removeprefix("Value error, ")
    field = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{field}: {_unknown_key(field, ObjectEntry)}"
    description = str(ObjectEntry.model_fields[field].description)
    expected = f"expected {description.partition('; ')[0]}"
    return f"{field}: {expected}, got {reprlib.repr(entry[field])}" if field in entry else f"{field}: {expected}"


def _unknown_key(key: str, model: type[BaseModel]) -> str:
    return f"unknown key; {suggestion(key, model.model_fields)}"


class _ManifestLoader(StrictLoader):
    """A loader whose keys are strings as written: the clip ids 001 and 2024-05-01 do not become a number and a date."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve `<<`, keeping each key once, so that nested merges do not grow exponentially."""
        super().flatten_mapping(node)
        last: dict[Hashable, Any] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                key.tag = "tag:yaml.org,2002:str"
            last[key.value if isinstance(key, yaml.ScalarNode) else id(key)] = key, value
        node.value = list(last.values())
