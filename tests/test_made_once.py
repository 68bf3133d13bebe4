"""Folders shared by the processes of pytest are made once, and completely."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.made_once import made_once


def factory(folder: Path) -> Any:
    """The temporary folders of a process of pytest."""
    folder.mkdir(exist_ok=True)
    return SimpleNamespace(getbasetemp=lambda: folder)


def test_processes_of_a_session_share_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        folder.mkdir()
        made.append(folder)

    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        assert made_once(factory(tmp_path / f"popen-{worker}"), "demo", make) == tmp_path / "demo"
    assert made == [tmp_path / "demo"]
    nested = tmp_path / "pytest-0"
    assert made_once(factory(nested), "demo", make) == nested / "demo", "of a pytest that a test has started"


def test_folder_is_made_again_after_a_failure(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        folder.mkdir()
        (folder / "half").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        made_once(factory(tmp_path / "own"), "demo", fail)
    made = made_once(factory(tmp_path / "own"), "demo", Path.mkdir)
    assert not list(made.iterdir())
