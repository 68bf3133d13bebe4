"""The reference of all options is generated from the YAML files and the constructors."""

from __future__ import annotations

from pathlib import Path

import pytest

from aot.config import GROUPS
from aot.reference import configuration_page, option_keys, options_of
from aot.run import main

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nothing_like_this.Part", "No module named 'nothing_like_this'"),
        ("mistyped.Part", "(mistyped.py, line 1)"),
        ("raising.Part", "out of luck"),
        ("aot.datasets.videos.Nothing", "Nothing"),
    ],
)
def test_help_reports_a_class_that_cannot_be_imported(
    target: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mistyped.py").write_text("class Part")
    (tmp_path / "raising.py").write_text("raise RuntimeError('out of luck')")
    (tmp_path / "options" / "tracker").mkdir(parents=True)
    (tmp_path / "options" / "tracker" / "mine.yaml").write_text(f"_target_: {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    for flag in ("--help", "dataset=demo"):
        assert main([flag, "tracker=mine", "--config-dir", str(tmp_path / "options")]) == 2
        message, nothing = capsys.readouterr().err.splitlines()
        assert message.startswith(f"tracker._target_='{target}' cannot be imported: ")
        assert reason in message
        assert nothing.startswith("Nothing was started.")


def test_the_committed_page_is_the_generated_one() -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "generate it: python -m aot.reference"


def test_every_key_of_every_option_has_a_type_and_a_meaning() -> None:
    keys = [key for group in GROUPS for option in options_of(group) for key in option_keys(group, option)]
    assert len(keys) > 100
    assert [key.name for key in keys if not (key.kind and key.meaning)] == []
