"""What prevents a folder or file from being written, and the sentence that reports it."""

from __future__ import annotations

from pathlib import Path

import pytest

from aot.errors import ConfigError
from aot.system.output_folder import check_output_file, check_output_folder, find_obstacle


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("link").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "place", "problem"),
    [
        ("file", "file", "is a file"),
        ("file/a/b", "file", "is a file"),
        ("/proc/a", "/proc", "does not accept new files"),
        ("link/a", "link", "is a symbolic link to a path that does not exist"),
        ("loop", "loop", "is a symbolic link to a path that does not exist"),
        (f"new/{'a' * 300}/b", f"new/{'a' * 300}", "has a name of 300 bytes, and at most 255 are possible"),
        (f"new/{'é' * 150}", f"new/{'é' * 150}", "has a name of 300 bytes, and at most 255 are possible"),
        ("a/" * 2500 + "a", "a/" * 2500 + "a", "is a path of 5001 bytes, and at most 4095 are possible"),
    ],
)
def test_obstacle_is_found_at_its_place(path: str, place: str, problem: str) -> None:
    found = find_obstacle(Path(path))
    assert found is not None
    assert (found.place, found.problem) == (Path(place), problem)


@pytest.mark.parametrize("path", [".", "new", "new/a/b", "é" * 127])
def test_usable_folder_has_no_obstacle_and_is_left_as_it_was(path: str, folder: Path) -> None:
    before = sorted(folder.iterdir())
    assert find_obstacle(Path(path)) is None
    check_output_folder("--out", Path(path))
    assert sorted(folder.iterdir()) == before


def test_folder_that_was_deleted_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "gone").mkdir()
    monkeypatch.chdir(folder / "gone")
    (folder / "gone").rmdir()
    with pytest.raises(ConfigError, match=r"--out=a cannot be written, because \. does not accept new files;"):
        check_output_folder("--out", Path("a"))


def test_file_is_refused_where_a_folder_is_or_its_name_is_too_long(folder: Path) -> None:
    check_output_file("--out", Path("file"))
    check_output_file("--out", Path("new/a.yaml"))
    expected = "expected a file that can be written: choose another one with --out=FILE"
    (folder / "folder").mkdir()
    with pytest.raises(ConfigError, match=f"^--out=folder is a folder; {expected}$"):
        check_output_file("--out", Path("folder"))
    with pytest.raises(ConfigError, match=f"^--out=file/a cannot be written, because file is a file; {expected}$"):
        check_output_file("--out", Path("file/a"))
    with pytest.raises(ConfigError, match=r"has a name of 300 bytes"):
        check_output_file("--out", Path("a" * 300))
