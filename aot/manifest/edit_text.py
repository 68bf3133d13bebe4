"""A manifest's YAML text, in which one entry at a time is replaced and everything else stays as people wrote it."""

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

_HEAD = "# Which objects to follow in which clip. Written by `python -m aot.prompt`; edit it as you like.\n"
# Anchors, aliases and merges tie an entry to others: it cannot be read without them.
_TIES = re.compile(r"(?:^|[\s\[{,])(?:[&*][^\s,\]}]|<<\s*:)", re.MULTILINE)
# Texts that need no quotes, unless they are words such as "no".
_PLAIN = re.compile(r"[A-Za-z_](?:[\w ./-]*\w)?")
# A document ends, or another begins: nothing can be put behind it.
_MARKER = re.compile(r"^(?:\.\.\.|---)", re.MULTILINE)
_CLIPS = re.compile(r"""^(['"]?)clips\1:[ \t]*(?:#.*)?\r?$""", re.MULTILINE)
_CONTENT = re.compile(r"^( *)([^\s#].*)$", re.MULTILINE)
_KEY = re.compile(r"""('(?:[^']|'')*'|"(?:[^"\\]|\\.)*"|[^'"].*?)\s*:(?:\s|$)""")
# Blank lines and comments behind an entry belong to what follows.
_TRAILING = re.compile(r"(?:^[ \t]*(?:#.*)?\r?\n)*(?:^[ \t]*(?:#.*)?)?\Z", re.MULTILINE)
_INDENT = 2
# No line is folded.
_WIDTH = 2**20


class ManifestText:
    """The text, and where in it every entry lies.

    An entry is cut out, changed by a parser that keeps comments, and put back, which takes milliseconds; the parser
    takes seconds for the whole text of a thousand clips. It gets the whole where an entry cannot be read alone.

    Args:
        text: a valid manifest; empty for a new file.
    """

    def __init__(self, text: str) -> None:
        self.text = text or f"{_HEAD}clips: {{}}\n"
        self._find_places()

    def replace(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> None:
        """Write one entry, or take it out.

        Args:
            clip_id: its key.
            entry: None takes it out.
            entries: all entries as the text holds them now.
        Raises:
            ConfigError: the text cannot be changed so that the other entries stay as they are.
        """
        if not self._replace_alone(clip_id, entry, entries):
            self._replace_within(clip_id, entry, entries)

    def _find_places(self) -> None:
        """Find the lines of every entry; there are none where `clips` is written in braces.

        In a block mapping only its keys stand at its column: whatever belongs to an entry stands further right.
        """
        self._places: dict[str, tuple[int, int]] = {}
        self._column = 0
        head = _CLIPS.search(self.text)
        first = _CONTENT.search(self.text, head.end()) if head else None
        if head is None or first is None or not first[1] or _MARKER.search(self.text, head.end()):
            return
        self._column = len(first[1])
        starts = [(line.start(), line[2]) for line in _CONTENT.finditer(self.text, head.end()) if line[1] == first[1]]
        for (start, line), end in zip(starts, [start for start, _ in starts[1:]] + [len(self.text)]):
            key = _KEY.match(line)
            if key is not None:
                content = _TRAILING.sub("", self.text[start:end])
                self._places[_unquoted(key[1])] = (start, start + len(content))

    def _replace_alone(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> bool:
        """Replace an entry's own lines; False where that cannot be done."""
        if not self._places or set(self._places) != set(entries) or (entry is None and len(entries) == 1):
            return False
        last = max(end for _, end in self._places.values())
        start, end = self._places.get(clip_id, (last, last))
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
        self._places = {
            key: place if place[0] < start or key == clip_id else (place[0] + shift, place[1] + shift)
            for key, place in self._places.items()
        }
        if lines:
            self._places[clip_id] = (start + len(lines) - len(lines.lstrip("\n")), start + len(lines))
        else:
            self._places.pop(clip_id, None)

    def _replace_within(self, clip_id: str, entry: ClipEntry | None, entries: Mapping[str, ClipEntry]) -> None:
        """Replace an entry by reading and writing the whole text."""
        wanted = {key: other for key, other in entries.items() if key != clip_id}
        wanted |= {} if entry is None else {clip_id: entry}
        # What an alias shares with others must not be changed in place: then the entry is written anew.
        for in_place in (True, False):
            text = _changed_text(self.text, clip_id, entry, in_place)
            if text is not None and _clips_of(text) == wanted:
                self.text = text
                self._find_places()
                return
        raise ConfigError(
            f"clip {clip_id!r}: its entry cannot be changed here without changing others; edit the manifest by hand"
        )


def plain_entry(entry: ClipEntry) -> dict[str, Any]:
    """An entry as the manifest writes it: without defaults, whole numbers without a point."""
    return {"objects": [_plain_object(item) for item in entry.objects]}


def _plain_object(item: ObjectEntry) -> dict[str, Any]:
    written: dict[str, Any] = {"id": item.id}
    written |= {"name": item.name} if item.name else {}
    written["frame"] = item.frame
    for name in ("box", "points", "labels", "mask", "query_points"):
        value = getattr(item, name)
        if value is not None and value != ():
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


def _unquoted(key: str) -> str:
    return str(yaml.safe_load(key)) if key[0] in "'\"" else key


def _changed_lines(lines: str, column: int, clip_id: str, entry: ClipEntry) -> str | None:
    """An entry's lines with its objects as they shall be; None where the lines cannot be read alone."""
    dedented = re.sub(rf"^ {{1,{column}}}", "", lines, flags=re.MULTILINE) if column else lines
    if lines and _TIES.search(dedented):
        return None
    try:
        parser = _parser(dedented)
        root = parser.load(dedented) if lines else CommentedMap()
        _set_entry(root, clip_id, entry)
        written = _dumped(parser, root)
        if "\r\n" in lines:
            written = written.replace("\n", "\r\n")
    except YAMLError:
        return None
    if _clips_of(f"clips:\n{_indented(written, 1)}") != {clip_id: entry}:
        return None
    return _indented(written, column)


def _changed_text(text: str, clip_id: str, entry: ClipEntry | None, in_place: bool) -> str | None:
    """The whole text with one entry changed or written anew; None where it cannot be read so."""
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
    """What a manifest's text says; None where it is not one."""
    try:
        return parse_manifest(text, Path("changed.yaml")).clips
    except ConfigError:
        return None


def _indented(text: str, column: int) -> str:
    return re.sub(r"^(?=[^\r\n])", " " * column, text, flags=re.MULTILINE)


def _parser(text: str) -> YAML:
    """A parser that keeps comments, quotes and, as far as it can tell, the indentation."""
    parser = YAML()
    parser.preserve_quotes = True
    parser.width = _WIDTH
    parser.allow_unicode = True
    is_flush = re.search(r"^( *)objects:[^\n]*\n(?:\s*#[^\n]*\n|\s*\n)*\1- ", text, re.MULTILINE) is not None
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
    """Make objects what they shall be, touching only what differs: so the comments beside the rest stay."""
    missing = {(item["id"], item["frame"]): item for item in wanted}
    for position in reversed(range(len(objects))):
        if (objects[position]["id"], objects[position].get("frame", 0)) not in missing:
            del objects[position]
    for item in objects:
        _set_object(item, missing.pop((item["id"], item.get("frame", 0))))
    objects += [_flow(item) for item in missing.values()]


def _set_object(item: CommentedMap, wanted: dict[str, Any]) -> None:
    for key in set(item) - set(wanted) - {"frame"}:
        del item[key]
    for key, value in wanted.items():
        is_same = key in item and item[key] == value
        if not is_same and not (key == "frame" and value == 0):
            item[key] = _flow(value)


def _flow(value: Any) -> Any:
    """Plain values as they are written: on one line, and texts so that no reader takes them for something else."""
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
