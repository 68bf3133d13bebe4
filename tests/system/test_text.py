"""Settings in messages are typed as they are printed: the shell and Hydra give back the value."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from aot.system.text import override_text


def read_back(typed: str) -> object:
    """The value that Hydra reads from a setting typed in a shell."""
    (argument,) = shlex.split(typed)
    return OverridesParser.create().parse_override(argument).value()


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1).filter(lambda text: "/" not in text))
@example("2024")
@example("1e5")
@example("null")
@example("-.inf")
@example("my clips (2024)")
@example('a "b" \\')
@example('\\"')
@example("it's, ~[a]={b} $HOME")
def test_a_path_is_read_back_unchanged(name: str) -> None:
    path = Path(name)
    assert read_back(override_text("dataset.root", path)) == str(path)


@pytest.mark.parametrize(
    ("value", "typed"),
    [
        ("2", "key=2"),
        ("data/a.mp4", "key=data/a.mp4"),
        ("my tea.mp4", "'key=\"my tea.mp4\"'"),
        (Path("2024"), "'key=\"2024\"'"),
    ],
)
def test_quotes_are_added_only_where_needed(value: str | Path, typed: str) -> None:
    assert override_text("key", value) == typed
