"""The list of clips in run.json, read without their records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aot.errors import ConfigError
from aot.paths import RunPaths
from aot.runs import run_json
from aot.runs.run_json import read_clip_ids, write_run_json

IDS = ["a", "day1/b", 'with "quotes" and \\', "é, 日本", '}, "clips": {']


def run(**changes: Any) -> dict[str, Any]:
    record = {"source": '/"clips": {', "size": 1}
    return {"config_hash": "0", "no_prompt": ["none"], "clips": dict.fromkeys(IDS, record)} | changes


def test_ids_are_read_without_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = RunPaths(tmp_path)
    write_run_json(paths, run())
    monkeypatch.setattr(run_json, "read_run_json", None)
    assert read_clip_ids(paths) == (IDS, ["none"])


@pytest.mark.parametrize(
    "text",
    [json.dumps(run()), json.dumps(run(), indent=1), json.dumps({"config_hash": "0", "clips": run()["clips"]})],
    ids=["one line", "indented", "without a list of clips that have no prompt"],
)
def test_other_layouts_are_read_completely(tmp_path: Path, text: str) -> None:
    paths = RunPaths(tmp_path)
    paths.run_json.write_text(text)
    assert read_clip_ids(paths)[0] == IDS


def test_ids_are_checked(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_run_json(paths, run(clips={"../outside": {}}))
    with pytest.raises(ConfigError, match=r"clip id '\.\./outside': expected a relative path"):
        read_clip_ids(paths)


def test_folder_without_run_json(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is not a run folder, it contains no run\.json"):
        read_clip_ids(RunPaths(tmp_path))
