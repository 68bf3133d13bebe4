"""Files are replaced atomically, and part files of killed processes are removed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from aot.errors import WriteError
from aot.system.files import remove_parts_of, replacing, replacing_folder, write_text


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as part:
        part.write_text("ne")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of the system that decide what is left after a power failure, in their order, by the file's suffix."""
    made: list[str] = []
    open_files: dict[int, str] = {}
    real_open, real_fsync, real_close, real_rename = os.open, os.fsync, os.close, os.replace

    def kind(path: object) -> str:
        return "folder" if Path(str(path)).is_dir() else Path(str(path)).suffix

    def open_(path: Any, *arguments: Any, **options: Any) -> int:
        descriptor = real_open(path, *arguments, **options)
        open_files[descriptor] = kind(path)
        return descriptor

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        made.append(f"flush {open_files[descriptor]}")

    def close(descriptor: int) -> None:
        real_close(descriptor)
        open_files.pop(descriptor, None)

    def rename(source: Any, target: Any, **options: Any) -> None:
        made.append(f"rename {kind(source)} to {Path(target).suffix}")
        real_rename(source, target, **options)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "close", close)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(os, "rename", rename)
    return made


def test_a_file_is_on_the_disk_before_its_name_and_then_the_folder(tmp_path: Path, calls: list[str]) -> None:
    """After a power failure the name must not refer to an empty file, and must not be lost."""
    write_text(tmp_path / "run.json", "new")
    assert calls == ["flush .part", "rename .part to .json", "flush folder"]


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A reader that has opened the old file keeps it, and the name refers to another file afterwards."""
    path = tmp_path / "run.json"
    write_text(path, "old " * 1000)
    with path.open() as reader:
        assert reader.read(4) == "old "
        before = path.stat().st_ino
        with replacing(path) as part:
            part.write_text("new " * 500)
            assert path.read_text() == "old " * 1000
            written = part.stat().st_ino
        assert reader.read() == "old " * 999
    assert path.read_text() == "new " * 500
    assert before != path.stat().st_ino == written, "renamed, not copied"


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_no_file_is_left_open(tmp_path: Path) -> None:
    def num_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = num_open()
    write_text(tmp_path / "run.json", "x")
    with replacing_folder(tmp_path / "folder"):
        pass
    with pytest.raises(WriteError, match="could not be written"):
        write_text(tmp_path / "folder", "x")
    assert num_open() == before


def test_parent_folders_are_created(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b" / "run.json", "x")
    with replacing_folder(tmp_path / "c" / "d" / "folder") as part:
        (part / "file").write_text("x")
    assert (tmp_path / "a" / "b" / "run.json").read_text() == "x"
    assert (tmp_path / "c" / "d" / "folder" / "file").read_text() == "x"


class TestFolders:
    def test_a_folder_is_replaced_with_its_contents(self, tmp_path: Path) -> None:
        path = tmp_path / "export"
        for number in (1, 2):
            with replacing_folder(path) as part:
                (part / f"{number}.png").write_text("x")
                assert path.exists() == (number == 2)
                assert part.parent == tmp_path, "on the same file system"
            assert [entry.name for entry in path.iterdir()] == [f"{number}.png"]
        assert [entry.name for entry in tmp_path.iterdir()] == ["export"]

    def test_an_error_keeps_the_old_folder(self, tmp_path: Path) -> None:
        path = tmp_path / "export"
        path.mkdir()
        (path / "old").touch()
        with pytest.raises(RuntimeError, match="halfway"), replacing_folder(path) as part:
            (part / "new").touch()
            raise RuntimeError("halfway")
        with (
            pytest.raises(WriteError, match=r"export could not be written: the disk is full"),
            replacing_folder(path) as part,
        ):
            raise OSError(errno.ENOSPC, "")
        assert [entry.name for entry in tmp_path.iterdir()] == ["export"]
        assert [entry.name for entry in path.iterdir()] == ["old"]

    def test_new_folders_follow_the_umask(self, tmp_path: Path) -> None:
        with replacing_folder(tmp_path / "ours"):
            pass
        (tmp_path / "plain").mkdir()
        assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_umask_stays_as_it_is(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "run.json", "x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o640


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250 + ".json"), "x")
    with pytest.raises(WriteError, match="could not be written"):
        write_text(tmp_path / ("n" * 300), "x")


def test_only_part_files_of_the_given_processes_are_removed(tmp_path: Path) -> None:
    names = [".node-a-7-x.h5.part", ".node-a-8-x.h5.part", ".node-7-x.h5.part", ".part", ".node-a-7-x.h5", "node.part"]
    names += [".node-a-seven-x.h5.part", ".not-ours.part"]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".node-a-7-folder.part").mkdir()
    assert remove_parts_of([tmp_path, tmp_path / "none"], [("node-a", 7), ("node-b", 8)]) == 1
    assert {path.name for path in tmp_path.iterdir()} == {*names[1:], ".node-a-7-folder.part"}


def test_part_file_that_another_process_removes_first_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = tmp_path / ".node-a-7-x.h5.part"
    part.touch()
    is_file = Path.is_file

    def then_remove(path: Path) -> bool:
        found = is_file(path)
        path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", then_remove)
    remove_parts_of([tmp_path], [("node-a", 7)])
    assert not list(tmp_path.iterdir())
