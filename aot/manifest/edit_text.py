"""The YAML text of a manifest, edited one entry at a time; the rest is preserved byte for byte.

PyYAML finds the lines of each entry; ruamel edits them and preserves their comments and quotes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from aot.errors import ConfigError
from aot.manifest.read import parse_manifest
from aot.manifest.schema import ClipEntry, ObjectEntry
from aot.system.yaml_files import SAFE_LOADER

_HEAD = "# Which objects to track in which clip. Written by `python -m aot.prompt`; edit it as you like.\n"
# Strings that need no quotes, unless YAML parses them as another type (`no`, `null`).
_PLAIN = re.compile(r"[A-Za-z_](?:[\w ./-]*\w)?")
_INDENT = 2
# Wide enough that ruamel never folds a line.
_WIDTH = 2**20


class ManifestText:
    """The text of a manifest and the position of every entry in it.

    An entry's lines are cut out, edited by a parser that preserves comments, and put back. This takes milliseconds,
    while that parser takes seconds for the text of a thousand clips. The full text is parsed only if an entry cannot
    be parsed separately, for example because it contains an alias.

    Args:
        text: a valid manifest; empty for a new file.
    """

    def __init__(self, text: str) -> None:
        self.text = text or f"{_HEAD}clips: {{}}\n"
        self._find_entries()

    def replace(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> None:
        """Write or remove one entry.

        Args:
            clip_id: key of the entry.
            entry: the new entry; None removes it.
            entries: all current entries of the text.
        Raises:
            ConfigError: the text cannot be edited without changing other entries.
        """
        if not self._replace_lines(clip_id, entry, entries):
            self._replace_in_full_text(clip_id, entry, entries)

    def _find_entries(self) -> None:
        """Find the lines of every entry; none if `clips` is written in braces, because entries may then share lines."""
        self._spans: dict[str, tuple[int, int]] = {}
        self._column = 0
        clips = _value(yaml.compose(self.text, Loader=SAFE_LOADER), "clips")
        # libyaml does not count a byte order mark, so all its positions would be off by one.
        if not isinstance(clips, yaml.MappingNode) or clips.flow_style or self.text.startswith("\ufeff"):
            return
        starts = [key.start_mark.index - key.start_mark.column for key, _ in clips.value]
        ends = [*starts[1:], clips.end_mark.index]
        self._column = clips.value[0][0].start_mark.column
        for (key, value), start, end in zip(clips.value, starts, ends):
            if self.text[start : key.start_mark.index].strip(" "):  # `? key` instead of `key:`
                self._spans = {}
                return
            self._spans[key.value] = start, self._content_end(max(key.end_mark.index, _last_mark(value)), end)

    def _content_end(self, start: int, end: int) -> int:
        """The end of an entry's last line; blank lines and comment lines after it belong to the next entry.

        Args:
            start: a position near the end of the entry's last value: before it, or after blank lines.
            end: start of the next entry.
        """
        while self.text[start - 1].isspace():
            start -= 1
        while True:
            begin = self.text.rfind("\n", start, end - 1) + 1
            line = self.text[begin:end].strip()
            if begin == 0 or (line and not line.startswith("#")):
                return end
            end = begin

    def _replace_lines(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> bool:
        """Replace only the lines of one entry; returns False if that is not possible."""
        if not self._spans or set(self._spans) != set(entries) or (entry is None and len(entries) == 1):
            return False
        last = max(end for _, end in self._spans.values())
        start, end = self._spans.get(clip_id, (last, last))
        lines = self.text[start:end]
        changed = "" if entry is None else _changed_lines(lines, self._column, clip_id, entry)
        if changed is None:
            return False
        if changed and start and not self.text[:start].endswith("\n"):
            changed = "\n" + changed
        self._put(clip_id, start, end, changed)
        return True

    def _put(self, clip_id: str, start: int, end: int, lines: str) -> None:
        self.text = self.text[:start] + lines + self.text[end:]
        shift = len(lines) - (end - start)
        self._spans = {
            key: span if span[0] < start or key == clip_id else (span[0] + shift, span[1] + shift)
            for key, span in self._spans.items()
        }
        if lines:
            self._spans[clip_id] = (start + len(lines) - len(lines.lstrip("\n")), start + len(lines))
        else:
            self._spans.pop(clip_id, None)

    def _replace_in_full_text(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> None:
        """Replace an entry by parsing and writing the full text."""
        wanted = {key: other for key, other in entries.items() if key != clip_id}
        wanted |= {} if entry is None else {clip_id: entry}
        # An edit in place also changes entries that share an anchor; in that case, the entry is rewritten.
        for in_place in (True, False):
            text = _changed_text(self.text, clip_id, entry, in_place)
            if text is not None and _clips_of(text) == wanted:
                self.text = text
                self._find_entries()
                return
        raise ConfigError(
            f"clip {clip_id!r}: its entry cannot be edited without changing other entries; edit the manifest in a text "
            f"editor"
        )


def plain_entry(entry: ClipEntry) -> dict[str, Any]:
    """An entry as written to a manifest: without defaults, and with integral numbers as integers."""
    return {"objects": [_plain_object(item) for item in entry.objects]}


def _plain_object(item: ObjectEntry) -> dict[str, Any]:
    written: dict[str, Any] = {"id": item.id}
    written |= {"name": item.name} if item.name else {}
    written["frame"] = item.frame
    for name in (
        "frames", "text", "count", "min_score", "score", "model", "box", "points", "labels", "mask", "mask_id",
        "query_points",
    ):  # fmt: skip
        value = getattr(item, name)
        if value not in (None, (), ""):
            written[name] = _plain(value)
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """The value of a key in a mapping; None if there is none."""
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _last_mark(node: yaml.Node) -> int:
    """The position after a node's last scalar; for an alias, after the anchored node's.

    The mark of a block mapping or sequence cannot be used: it is after the comments that follow.
    """
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _is_linked(lines: str) -> bool:
    """Whether anchors, aliases or merge keys link an entry to others, so that it cannot be parsed separately."""
    return any(
        isinstance(token, yaml.AnchorToken | yaml.AliasToken)
        or (isinstance(token, yaml.ScalarToken) and token.plain and token.value == "<<")
        for token in yaml.scan(lines, Loader=SAFE_LOADER)
    )


def _has_flush_sequence(node: yaml.Node | None) -> bool:
    """Whether the dashes of a list of objects are in the same column as their key."""
    return isinstance(node, yaml.MappingNode) and any(
        (isinstance(value, yaml.SequenceNode) and value.start_mark.column == key.start_mark.column)
        or _has_flush_sequence(value)
        for key, value in node.value
    )


def _changed_lines(lines: str, column: int, clip_id: str, entry: ClipEntry) -> str | None:
    """The lines of an entry with the wanted objects; None if the lines cannot be parsed separately."""
    dedented = re.sub(rf"^ {{1,{column}}}", "", lines, flags=re.MULTILINE)
    try:
        if _is_linked(dedented):
            return None
        parser = _parser(dedented)
        root = parser.load(dedented) if lines else CommentedMap()
        _set_entry(root, clip_id, entry)
        written = _dumped(parser, root)
        if "\r\n" in lines:
            written = written.replace("\n", "\r\n")
    except (YAMLError, yaml.YAMLError):
        return None
    if _clips_of(f"clips:\n{_indented(written, 1)}") != {clip_id: entry}:
        return None
    return _indented(written, column)


def _changed_text(text: str, clip_id: str, entry: ClipEntry | None, in_place: bool) -> str | None:
    """The full text with one entry edited in place or rewritten; None if that is not possible."""
    try:
        parser = _parser(text)
        root = parser.load(text)
        clips = root["clips"]
        if entry is None:
            del clips[clip_id]
        else:
            _set_entry(clips, clip_id, entry, in_place=in_place)
        if not clips:
            clips.fa.set_flow_style()
        return _dumped(parser, root)
    except (YAMLError, LookupError):
        return None


def _clips_of(text: str) -> dict[str, ClipEntry] | None:
    """The entries of a manifest's text; None if it is not a valid manifest."""
    try:
        return parse_manifest(text, Path("changed.yaml")).clips
    except ConfigError:
        return None


def _indented(text: str, column: int) -> str:
    return re.sub(r"^(?=[^\r\n])", " " * column, text, flags=re.MULTILINE)


def _parser(text: str) -> YAML:
    """A parser that preserves comments, quotes and the indentation of lists."""
    parser = YAML()
    parser.preserve_quotes = True
    parser.width = _WIDTH
    parser.allow_unicode = True
    is_flush = _has_flush_sequence(yaml.compose(text, Loader=SAFE_LOADER))
    parser.indent(mapping=_INDENT, sequence=_INDENT if is_flush else 2 * _INDENT, offset=0 if is_flush else _INDENT)
    return parser


def _dumped(parser: YAML, root: CommentedMap) -> str:
    stream = io.StringIO()
    parser.dump(root, stream)
    return stream.getvalue()


def _set_entry(clips: CommentedMap, clip_id: str, entry: ClipEntry, *, in_place: bool = True) -> None:
    wanted = plain_entry(entry)["objects"]
    if in_place and clip_id in clips:
        _set_objects(clips[clip_id]["objects"], wanted)
        return
    if not clips:
        clips.fa.set_block_style()
    clips[_flow(clip_id)] = CommentedMap(objects=CommentedSeq([_flow(item) for item in wanted]))


def _set_objects(objects: CommentedSeq, wanted: list[dict[str, Any]]) -> None:
    """Change, remove and add objects, touching only what differs, so that other comments are preserved."""
    missing = {(item["id"], item["frame"]): item for item in wanted}
    for position in reversed(range(len(objects))):
        if _key_of(objects[position]) not in missing:
            del objects[position]
    for item in objects:
        _set_object(item, missing.pop(_key_of(item)))
    objects += [_flow(item) for item in missing.values()]


def _key_of(item: CommentedMap) -> tuple[int, int]:
    """The id and the frame of an object, which is the first one where it has several."""
    return item["id"], item.get("frame", item.get("frames", [0])[0])


def _set_object(item: CommentedMap, wanted: dict[str, Any]) -> None:
    for key in set(item) - set(wanted) - {"frame"}:
        del item[key]
    for key, value in wanted.items():
        is_same = key in item and item[key] == value
        is_implied = key == "frame" and (value == 0 or "frames" in item)
        if not is_same and not is_implied:
            item[key] = _flow(value)


def _flow(value: Any) -> Any:
    """A value to write: on one line, and quoted if YAML would parse the string as another type."""
    if isinstance(value, dict):
        mapping = CommentedMap((key, _flow(item)) for key, item in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq([_flow(item) for item in value])
        sequence.fa.set_flow_style()
        return sequence
    if isinstance(value, str) and not (_PLAIN.fullmatch(value) and yaml.safe_load(value) == value):
        return DoubleQuotedScalarString(value)
    return value
