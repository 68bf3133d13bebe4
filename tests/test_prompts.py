"""The command `python -m aot.prompts`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aot import prompts
from tests.manifest.samples import EVERY_KIND, write


def test_schema_and_check_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["$defs"]["ObjectEntry"]["properties"]) == {
        "id", "name", "frame", "box", "points", "labels", "mask", "query_points",
    }  # fmt: skip
    assert "replace" in schema["$defs"]["ObjectEntry"]["properties"]["query_points"]["description"]
    assert prompts.main(["check", str(write(tmp_path, EVERY_KIND))]) == 2
    assert "object 2: mask" in capsys.readouterr().err
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "teapot_2.png").touch()
    assert prompts.main(["check", str(write(tmp_path, EVERY_KIND))]) == 0
    assert "frame numbers and coordinates were not compared with the videos" in capsys.readouterr().out
    assert prompts.main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist; expected a YAML or JSON file" in capsys.readouterr().err
