"""Files are replaced atomically, and part files of killed processes are removed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from aot.errors import WriteError
from aot.system.files import remove_abandoned_parts, replacing, write_text


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    write_text(path, "old")
    with pytest.raises(RuntimeError, match="halfway"), replacing(path) as part:
        part.write_text("ne")
        raise RuntimeError("halfway")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_new_files_follow_the_umask(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 250 + ".json"), "x")
    with pytest.raises(WriteError, match="could not be written"):
        write_text(tmp_path / ("n" * 300), "x")


def test_only_part_files_of_dead_processes_are_removed(tmp_path: Path) -> None:
    host = socket.gethostname()
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    folder = tmp_path / "clips" / "day1"
    folder.mkdir(parents=True)
    dead, living = folder / f".{host}-{finished.pid}-x.h5.part", folder / f".{host}-{os.getpid()}-x.h5.part"
    elsewhere = [folder / f".{host}{more}-{os.getpid()}-x.h5.part" for more in ("2", f"-{finished.pid}")]
    for path in (dead, living, *elsewhere):
        path.touch()
    assert remove_abandoned_parts(tmp_path) == 1
    assert not dead.exists()
    assert living.exists()
    assert all(path.exists() for path in elsewhere)
