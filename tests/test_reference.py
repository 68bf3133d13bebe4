"""The reference of all options is generated from the YAML files and the constructors."""

from __future__ import annotations

from pathlib import Path

from aot.config import GROUPS
from aot.reference import configuration_page, option_keys, options_of

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "generate it: python -m aot.reference"


def test_every_key_of_every_option_has_a_type_and_a_meaning() -> None:
    keys = [key for group in GROUPS for option in options_of(group) for key in option_keys(group, option)]
    assert len(keys) > 100
    assert [key.name for key in keys if not (key.kind and key.meaning)] == []
