"""Read text files that people wrote or edited; what is wrong with one is described by line and column."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aot.system.os_errors import os_reason

# Reasons for what the parser of the standard library reports: the text of its error begins with one of the keys.
_JSON_REASONS = {
    "Expecting value": "a value is missing or not valid here; text needs double quotes",
    "Expecting property name": "a key is missing or not valid here; keys need double quotes",
    "Illegal trailing comma": "the last item is followed by a comma; remove the comma",
    "Expecting ':'": "a colon is missing after a key",
    "Expecting ','": "a comma or a closing bracket is missing",
    "Unterminated string": "the quotation mark here is never closed",
    "Invalid control character": "a line break or a control character is inside quotes; write \\n for a line break",
    "Invalid \\": "the backslash here starts no valid escape sequence; write \\\\ for a backslash",
    "Extra data": "the content ends before this character; remove what follows, or join the parts in one list",
    "Unexpected UTF-8 BOM": "the file starts with a byte order mark; save it as UTF-8 without one",
}
_JSON_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")(\s*:)?|[{}]', re.DOTALL)


class MalformedFile(ValueError):
    """A file cannot be read, or its content is not of its format.

    Args:
        reason: what is wrong, as a clause that follows the name of the file and a colon.
        line, column: where, from 1; None: the reason concerns no single position.
    """

    def __init__(self, reason: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line
        self.column = column

    @classmethod
    def at(cls, text: str, offset: int, reason: str) -> MalformedFile:
        """The error at a position of a text, given as the number of characters before it."""
        return cls(reason, text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))

    def about(self, name: str | Path) -> str:
        """The start of a message: the file's name, the position if there is one, and the reason."""
        where = "" if self.line is None else f", line {self.line}, column {self.column}"
        return f"{name}{where}: {self.reason}"


def placed(error: Exception, line: int) -> MalformedFile:
    """The error of one line of a file, as an error of the file."""
    reason = error if isinstance(error, MalformedFile) else MalformedFile(_reason(error))
    return MalformedFile(reason.reason, line, reason.column or 1)


def about_file(name: str | Path, error: Exception) -> str:
    """The start of a message about a file whose parsed content is not what was expected.

    Args:
        name: the file's name.
        error: a MalformedFile, or what Python raises for a missing key or a value of another type.
    """
    return error.about(name) if isinstance(error, MalformedFile) else f"{name}: {_reason(error)}"


def _reason(error: Exception) -> str:
    is_missing = isinstance(error, KeyError)
    return f"the key {error.args[0]!r} is missing" if is_missing else "a value is not of the expected type"


def read_text(path: Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        MalformedFile: the file cannot be read (its cause is the OSError), or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise MalformedFile(f"cannot be read: {os_reason(exc)}") from exc
    return decode_text(content).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(content: bytes) -> str:
    """Decode the content of a text file; a byte order mark at its start, as Windows editors write it, is left out.

    Raises:
        MalformedFile: it is not UTF-8.
    """
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as exc:
        before = content[: exc.start].decode()
        reason = f"not text in UTF-8 (byte 0x{content[exc.start]:02x}); save it as UTF-8"
        raise MalformedFile.at(before, len(before), reason) from exc


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        MalformedFile: the file cannot be read, or is not JSON.
    """
    return parse_json(read_text(path))


def parse_json(text: str, *, refuse_repeats: bool = False) -> Any:
    """Parse JSON.

    Args:
        text: the content of a file.
        refuse_repeats: refuse an object with the same key twice, of which the last one would win.
    Raises:
        MalformedFile: the text is not JSON.
    """
    if not text.strip():
        raise MalformedFile("the file is empty")
    try:
        return json.loads(text, object_pairs_hook=_refusing_repeats(text) if refuse_repeats else None)
    except json.JSONDecodeError as exc:
        reason = next((words for start, words in _JSON_REASONS.items() if exc.msg.startswith(start)), "unexpected text")
        raise MalformedFile(f"not valid JSON: {reason}", exc.lineno, exc.colno) from exc
    except RecursionError as exc:
        raise MalformedFile("not valid JSON: lists and objects are nested too deeply") from exc
    except MalformedFile:
        raise
    except ValueError as exc:  # Python refuses integers of more than 4300 digits
        raise MalformedFile("not valid JSON: a number has too many digits") from exc


def _refusing_repeats(text: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """A hook for the parser, which calls it with the keys and values of every object."""

    def checked(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise _repeated_key(text)
        return values

    return checked


def _repeated_key(text: str) -> MalformedFile:
    """The error for the first repeated key of a text, which is valid JSON up to the end of that key's object."""
    known: list[dict[str, int]] = []
    for token in _JSON_TOKENS.finditer(text):
        if token[0] == "{":
            known.append({})
        elif token[0] == "}":
            known.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key in known[-1]:
                first = text.count("\n", 0, known[-1][key]) + 1
                return MalformedFile.at(text, token.start(), repeated_key_reason(key, first))
            known[-1][key] = token.start()
    return MalformedFile("a key is given twice; remove or rename one")


def repeated_key_reason(key: object, first_line: int) -> str:
    """The reason for refusing a key that its object or mapping has already."""
    return f"the key {key!r} is given twice, first in line {first_line}; remove or rename one of them"
