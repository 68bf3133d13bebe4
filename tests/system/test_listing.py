from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aot.system.listing import is_ignored, list_tree, visible_entries


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._a.mp4", ".ipynb_checkpoints", "@eaDir", "Thumbs.db", "__MACOSX", "lost+found", "desktop.ini"],
)
def test_what_systems_and_tools_leave_behind_is_ignored(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/inside.mp4", "a.mp4")
    assert visible_entries(tmp_path) == [tmp_path / "a.mp4"]
    assert list_tree(tmp_path).files == [tmp_path / "a.mp4"]


def test_ordinary_names_are_not_ignored() -> None:
    assert not any(map(is_ignored, ["a.b", "_x", "@user", "#1.png", "thumbs", "lost", "-1.png"]))


def test_what_cannot_be_read_is_named_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4", "closed/3.mp4", "z.mp4")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.mp4").symlink_to("/nowhere/gone.mp4")
    scandir = os.scandir

    def refusing(path: Any) -> Iterator[Any]:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    tree = list_tree(tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in tree.files] == ["a/1.mp4", "b/2.mp4", "z.mp4"]
    assert tree.broken_links == [tmp_path / "gone.mp4"]
    assert tree.skipped == [
        f"{tmp_path}/a/up (a link to a folder above it)",
        f"{tmp_path}/closed (no permission)",
        f"{tmp_path}/loop (its symbolic links form a loop)",
    ]
