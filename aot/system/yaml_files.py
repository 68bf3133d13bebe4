"""Parse YAML that people wrote or edited; errors are described in plain words, with the line and column to look at.

The messages of PyYAML and libyaml name states of the parser ("while parsing a flow sequence"), and point to where the
parser gave up, which for an unclosed bracket is the end of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.reader import Reader

from aot.system.text_files import MalformedFile, repeated_key_reason

# If PyYAML was built with libyaml, its loader is ten times as fast.
SAFE_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_CLOSING = {"[": "]", "{": "}"}
_OPENING_TOKENS = (yaml.FlowSequenceStartToken, yaml.FlowMappingStartToken)
_CLOSING_TOKENS = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken)

# What constructing a scalar of an implicit or explicit type may raise: 2024-13-45 looks like a date, but is not one.
_NOT_OF_ITS_TYPE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, yaml.constructor.ConstructorError)

# The reason for each problem that both libyaml and PyYAML report with these words. {word}: the text at the position.
_REASONS = {
    "undefined alias": "no anchor above defines the alias {word}; put a text that starts with * in quotes",
    "scanning an alias": "a text that starts with * needs quotes",
    "scanning an anchor": "a text that starts with & needs quotes",
    "duplicate anchor": "the anchor {word} is defined twice; rename one of the two",
    "directive": "a text that starts with % needs quotes",
    "cannot start any token": "a text that starts with {character} needs quotes",
    "values are not allowed": "a colon is not expected here; put a text that contains a colon and a space in quotes, "
    "or correct the indentation of this line or the line above",
    "mapping keys are not allowed": "a key is not expected here; correct the indentation",
    "sequence entries are not allowed": "a list item (-) is not expected here; start the list on a new line",
    "scanning a simple key": "a colon and a value are missing after this text",
    "find expected key": "the text here does not continue the lines above; correct the indentation, or put the "
    "complete value in quotes",
    "expected <block end>": "the text here does not continue the lines above; correct the indentation, or put the "
    "complete value in quotes",
    "'-' indicator": "expected another list item, which starts with -; correct the indentation of this line",
    "unknown escape": "the backslash starts no valid escape sequence; write \\\\ for a backslash, or use single quotes",
    "constructor for the tag": "the tag {word} is not supported; remove it, or put a text that starts with ! in quotes",
    "tag handle": "the tag {word} is not supported; remove it, or put a text that starts with ! in quotes",
    "scanning a tag": "a text that starts with ! needs quotes",
    "another document": "a second document starts here; expected a single one: remove the line",
    "unhashable": "a list or a mapping is used as a key; expected text",
    "for merging": "<< expects a mapping, or an alias of one",
    "maximum nesting depth": "lists and mappings are nested too deeply",
    "scanning a quoted scalar": "the quotation mark here is never closed",
    "scanning a block scalar": "the text after | or > is not indented as expected",
}


_UNKNOWN_REASON = "check the brackets, quotes, colons and indentation of this line and the line above"


class RepeatedKey(yaml.MarkedYAMLError):
    """A mapping has the same key twice, of which the last one would win.

    Args:
        key: the second one.
        first: the first one.
    """

    def __init__(self, key: yaml.ScalarNode, first: yaml.ScalarNode) -> None:
        reason = repeated_key_reason(key.value, first.start_mark.line + 1)
        super().__init__(problem=reason, problem_mark=key.start_mark)


class StrictLoader(SAFE_LOADER):  # type: ignore[misc, valid-type]
    """YAML's safe loader, which also refuses repeated keys: YAML would silently use the last one."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        first: dict[str, yaml.ScalarNode] = {}
        for key, _ in node.value:
            is_own = isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
            if is_own and first.setdefault(key.value, key) is not key:
                raise RepeatedKey(key, first[key.value])
        super().flatten_mapping(node)


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = StrictLoader) -> Any:
    """Parse a YAML document.

    Args:
        text: the content of a file.
        loader: a safe loader.
    Returns:
        Its content; None if there is none, or only comments.
    Raises:
        MalformedFile: the text is not YAML.
    """
    text = text.removeprefix("\ufeff")  # libyaml does not count it, so that all its positions would be off by one
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 (a safe loader)
    except yaml.MarkedYAMLError as exc:
        raise _malformed(text, exc) from exc
    except yaml.YAMLError as exc:  # of the reader, which does not mark positions
        found = Reader.NON_PRINTABLE.search(text)
        reason = f"not valid YAML: the control character U+{ord(found[0]):04X}; remove it" if found else "not YAML"
        raise MalformedFile.at(text, found.start() if found else 0, reason) from exc
    except RecursionError as exc:
        raise MalformedFile("not valid YAML: lists and mappings are nested too deeply") from exc
    except _NOT_OF_ITS_TYPE as exc:
        raise _not_of_its_type(text, loader) from exc


def _malformed(text: str, error: yaml.MarkedYAMLError) -> MalformedFile:
    """An error of the parser in plain words, at the position that has to be changed."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return MalformedFile(f"not valid YAML: {_UNKNOWN_REASON}", 1, 1)
    if isinstance(error, RepeatedKey):
        return _at(mark, str(error.problem))
    lines = [*text.splitlines(), ""]
    line = lines[min(mark.line, len(lines) - 1)]
    tab = re.match(r" *(?=\t)", line)
    if tab and mark.column <= len(line) - len(line.lstrip()):
        return MalformedFile("not valid YAML: a tab is used for indentation; use spaces", mark.line + 1, tab.end() + 1)
    if isinstance(error, yaml.parser.ParserError):
        found = _misplaced_bracket(text, lines, mark)
        if found is not None:
            return found
    if error.context_mark is not None and re.match("while scanning an? ", error.context or ""):
        # The text that cannot be read begins there; the problem is where it should have ended.
        mark = error.context_mark
        line = lines[mark.line]
    return _at(mark, _reason(error, line[mark.column :]))


def _reason(error: yaml.MarkedYAMLError, rest: str) -> str:
    """The reason of an error, with what to change.

    Args:
        error: of the parser.
        rest: the line from the position of the error on.
    """
    words = f"{error.context or ''} {error.problem or ''}"
    if rest.startswith("\t"):
        return "a tab is not expected here; use spaces"
    reason = next((reason for key, reason in _REASONS.items() if key in words), None)
    if reason is None and isinstance(error, yaml.constructor.ConstructorError):
        reason = "the value does not fit its tag {word}; remove the tag"
    word = re.match(r"[^\s,\[\]{}]*", rest)
    return (reason or _UNKNOWN_REASON).format(word=word[0] if word else "", character=rest[:1])


def _misplaced_bracket(text: str, lines: list[str], mark: yaml.Mark) -> MalformedFile | None:
    """The error for brackets that are not closed, close nothing or follow a colon directly; None: these are correct."""
    line = lines[min(mark.line, len(lines) - 1)]
    bracket = _open_bracket(text, mark)
    if bracket is not None:
        is_end = not "".join([line[mark.column :], *lines[mark.line + 1 :]]).strip()
        return _unclosed(bracket, mark, is_end=is_end)
    glued = re.match(r"\s*(?:- )?[\w./*-]+:(?=[\[{])", line)
    if glued:
        return MalformedFile("not valid YAML: a space is missing after the colon", mark.line + 1, glued.end() + 1)
    character = line[mark.column : mark.column + 1]
    if character and character in "]}":
        return _at(mark, f"the {character} here closes no bracket; remove it")
    return None


def _at(mark: yaml.Mark, reason: str) -> MalformedFile:
    return MalformedFile(f"not valid YAML: {reason}", mark.line + 1, mark.column + 1)


def _open_bracket(text: str, end: yaml.Mark) -> yaml.Token | None:
    """The innermost bracket or brace that is open at a position; None if there is none."""
    opened: list[yaml.Token] = []
    for token in yaml.scan(text, Loader=SAFE_LOADER):
        if token.start_mark.index >= end.index:
            break
        if isinstance(token, _OPENING_TOKENS):
            opened.append(token)
        elif isinstance(token, _CLOSING_TOKENS) and opened:
            opened.pop()
    return opened[-1] if opened else None


def _unclosed(bracket: yaml.Token, mark: yaml.Mark, *, is_end: bool) -> MalformedFile:
    """The error for a bracket or brace that is open where the parser gave up."""
    opening = "[" if isinstance(bracket, yaml.FlowSequenceStartToken) else "{"
    closing = _CLOSING[opening]
    start = bracket.start_mark
    if is_end:
        return _at(start, f"the {opening} here is never closed; add the missing {closing}")
    where = f"line {start.line + 1}, column {start.column + 1}"
    return _at(mark, f"expected a comma, or the {closing} that closes the {opening} of {where}; add what is missing")


def _not_of_its_type(text: str, loader: type[yaml.SafeLoader]) -> MalformedFile:
    """The error for the first scalar that cannot be constructed."""
    parser = loader(text)
    for node in _scalars(parser.get_single_node(), set()):
        try:
            parser.construct_object(node)
        except _NOT_OF_ITS_TYPE:
            return _at(node.start_mark, f"{node.value!r} is not a valid number or date; put text in quotes")
    return MalformedFile("not valid YAML: a value does not have the type of its tag; remove tags that start with !")


def _scalars(node: yaml.Node | None, visited: set[int]) -> Iterator[yaml.ScalarNode]:
    """All scalars below a node, each once: aliases repeat nodes."""
    if node is None or id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield node
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        for part in child if isinstance(child, tuple) else (child,):
            yield from _scalars(part, visited)
