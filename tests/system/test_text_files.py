"""Text and JSON files that cannot be read, and the position of what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from aot.system.text_files import MalformedFile, decode_text, parse_json, read_json, read_text

BROKEN_JSON = {
    "": ": the file is empty",
    " \n": ": the file is empty",
    "{": ", line 1, column 2: not valid JSON: a key is missing or not valid",
    "{a: 1}": ", line 1, column 2: not valid JSON: a key is missing or not valid",
    '{"a": 1,\n "b" 2}': ", line 2, column 6: not valid JSON: a colon is missing after a key",
    '{"a": 1\n "b": 2}': ", line 2, column 2: not valid JSON: a comma or a closing bracket is missing",
    '{"a": tru}': ", line 1, column 7: not valid JSON: a value is missing or not valid",
    '{"a": "x': ", line 1, column 7: not valid JSON: the quotation mark here is never closed",
    '{"a": "x\n"}': ", line 1, column 9: not valid JSON: a line break or a control character is inside quotes",
    r'{"a": "\q"}': ", line 1, column 8: not valid JSON: the backslash here starts no valid escape sequence",
    "{}\n{}": ", line 2, column 1: not valid JSON: the content ends before this character",
    "\ufeff{}": ", line 1, column 1: not valid JSON: the file starts with a byte order mark",
    "[" * 100_000: ": not valid JSON: lists and objects are nested too deeply",
    "1" * 5000: ": not valid JSON: a number has too many digits",
}


@pytest.mark.parametrize("text", BROKEN_JSON, ids=lambda text: repr(text[:20]))
def test_broken_json_is_described_in_plain_words(text: str) -> None:
    with pytest.raises(MalformedFile) as caught:
        parse_json(text)
    assert caught.value.about("a.json").startswith(f"a.json{BROKEN_JSON[text]}")
    assert "(char" not in caught.value.reason


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ('{"a": 1,\n "a": 2}', 2, 2),
        ('{"b": [{"a": 1}, {"a": 1}],\n"c": {"x": "{", "x" : 1}}', 2, 17),
        ('{"a\\"": 1, "a\\u0022": 2}', 1, 12),
    ],
)
def test_repeated_keys_are_refused_where_they_are_repeated(text: str, line: int, column: int) -> None:
    parse_json(text)
    with pytest.raises(
        MalformedFile, match=r"is given twice, first in line \d; remove or rename one of them"
    ) as caught:
        parse_json(text, refuse_repeats=True)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_equal_keys_of_different_objects_are_accepted() -> None:
    text = '{"a": {"a": 1, "b": [{"a": 2}, {"a": 3}]}, "b": {"a": 4}}'
    assert parse_json(text, refuse_repeats=True)["b"] == {"a": 4}


def test_text_that_is_not_utf8_is_refused_with_its_position(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"not text in UTF-8 \(byte 0xff\); save it as UTF-8") as caught:
        decode_text(b"\xc3\xa9\r\n\xc3\xa9a\xff")
    assert (caught.value.line, caught.value.column) == (2, 3)
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a":\r\n"b"}')
    assert read_text(path) == '{"a":\n"b"}'
    assert read_json(path) == {"a": "b"}


def test_a_file_that_cannot_be_opened_is_described(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"^cannot be read: no such file or folder$"):
        read_json(tmp_path / "a.json")
    with pytest.raises(MalformedFile, match=r"^cannot be read: it is a folder, not a file$"):
        read_json(tmp_path)
