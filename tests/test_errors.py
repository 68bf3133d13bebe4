"""Messages of errors."""

from __future__ import annotations

from aot.errors import DecodeError, printable


def test_control_and_format_characters_are_shown_as_escapes() -> None:
    assert printable("a\u202eb\u200dc\x1b[0m\u2028\nd\té 茶") == "a\\u202eb\\u200dc\\x1b[0m\\u2028\nd\té 茶"
    assert printable("a\nb", keep="") == r"a\nb"


def test_messages_show_the_names_of_files_as_escapes() -> None:
    assert (
        str(DecodeError("a\u202e4pm.exe: cannot be read;\nsee below")) == "a\\u202e4pm.exe: cannot be read;\nsee below"
    )
