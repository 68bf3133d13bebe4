"""Errors of YAML files in plain words, at the position that has to be changed."""

from __future__ import annotations

import random
import re

import pytest
import yaml

from aot.system.text_files import MalformedFile
from aot.system.yaml_files import SAFE_LOADER, parse_yaml

BROKEN = {
    "unclosed bracket": ("clips:\n  a: [1, 2\n", "line 2, column 6: not valid YAML: the [ here is never closed"),
    "unclosed brace": (
        "a: {b: 1\nc: 2\n",
        "line 2, column 2: not valid YAML: expected a comma, or the } that closes the { of line 1, column 4",
    ),
    "other bracket": ("a: {b: [1}\n", "line 1, column 10: not valid YAML: expected a comma, or the ] that closes"),
    "bracket in excess": ("a: {b: 1}}\n", "line 1, column 10: not valid YAML: the } here closes no bracket"),
    "tab": ("a:\n  b:\n\t\tc: 1\n", "line 3, column 1: not valid YAML: a tab is used for indentation; use spaces"),
    "tab after spaces": ("a:\n  \tb: 1\n  c: 2\n", "line 2, column 3: not valid YAML: a tab is used for indentation"),
    "unknown alias": ("a: *shared\n", "line 1, column 4: not valid YAML: no anchor above defines the alias *shared"),
    "pattern without quotes": ("a:\n  *.mp4: 1\n", "line 2, column 3: not valid YAML: a text that starts with * needs"),
    "reserved character": ("a: @b\n", "line 1, column 4: not valid YAML: a text that starts with @ needs quotes"),
    "open quote": ("a: 1\nb: 'x\nc: 2\n", "line 2, column 4: not valid YAML: the quotation mark here is never closed"),
    "second colon": ("a: b: c\n", "line 1, column 5: not valid YAML: a colon is not expected here"),
    "no space after colon": ("a:\n  b:{c: [1]}\n", "line 2, column 5: not valid YAML: a space is missing after"),
    "indentation": ("a:\n  b: 1\n c: 2\n", "line 3, column 2: not valid YAML: the text here does not continue"),
    "key without value": ("a: 1\nb\nc: 2\n", "line 2, column 1: not valid YAML: a colon and a value are missing"),
    "list and keys": ("a:\n- 1\n- 2\n b: 1\n", "line 4, column 3: not valid YAML: a colon is not expected here"),
    "second document": ("a: 1\n---\nb: 2\n", "line 2, column 1: not valid YAML: a second document starts here"),
    "tag": ("a: !x 1\n", "line 1, column 4: not valid YAML: the tag !x is not supported; remove it"),
    "date": ("a: 1\nb: 2024-13-45\n", "line 2, column 4: not valid YAML: '2024-13-45' is not a valid number or date"),
    "wrong type": ("a: !!bool x\n", "line 1, column 4: not valid YAML: 'x' is not a valid number or date"),
    "control character": ("a: b\n\x07c: d\n", "line 2, column 1: not valid YAML: the control character U+0007"),
    "byte order mark": ("\ufeffa: [", "line 1, column 4: not valid YAML: the [ here is never closed"),
    "nesting": ("[" * 5000, "lists and mappings are nested too deeply"),
}  # fmt: skip

# Words of the parsers, which mean nothing to the author of a file.
JARGON = re.compile(r"while \w+ing|expected <|did not find|scalar|flow|block|token|stream|node|simple key|<unicode")


@pytest.mark.parametrize("loader", dict.fromkeys([SAFE_LOADER, yaml.SafeLoader]), ids=lambda loader: loader.__name__)
@pytest.mark.parametrize("name", BROKEN)
def test_errors_are_in_plain_words_with_their_position(name: str, loader: type[yaml.SafeLoader]) -> None:
    text, message = BROKEN[name]
    with pytest.raises(MalformedFile) as caught:
        parse_yaml(text, loader)
    shown = caught.value.about("a.yaml")
    assert not JARGON.search(shown)
    if loader is SAFE_LOADER:
        assert message in shown
    assert shown.startswith("a.yaml, line ") or name == "nesting"


VALID = """\
clips:
  teapot:
    objects:
      - {id: 1, name: "a b", frame: 3, box: [1, 2, 3, 4]}
      - id: 2
        points: [[1, 2], [3, 4]]
  'day1/*': &x
    objects: [{id: 1, mask: a.png}]  # comment
  b: *x
"""


INSERTED = "[]{}:,-'\"&*!|>\t\n %@`#?\\ab1\x07é"


def error_of(text: str) -> MalformedFile | None:
    try:
        parse_yaml(text)
    except MalformedFile as exc:
        return exc
    return None


def test_no_broken_file_shows_words_of_the_parser() -> None:
    chosen = random.Random(0)
    refused = []
    for _ in range(2000):
        characters = list(VALID)
        for _ in range(chosen.randint(1, 4)):
            position = chosen.randrange(len(characters))
            characters[position : position + chosen.randint(0, 1)] = chosen.choice(INSERTED)
        refused += [error for error in [error_of("".join(characters))] if error is not None]
    assert len(refused) > 500
    assert not [error.reason for error in refused if JARGON.search(error.reason) or error.line is None]


def test_valid_files_are_parsed() -> None:
    assert parse_yaml(VALID)["clips"]["b"] == {"objects": [{"id": 1, "mask": "a.png"}]}
    assert parse_yaml("\ufeffa: 1") == {"a": 1}
    assert parse_yaml("# only a comment\n") is None
