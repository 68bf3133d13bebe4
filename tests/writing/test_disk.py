"""The file object below HDF5: short writes, failed writes, and what is read back after them."""

from __future__ import annotations

import errno
import itertools
import os
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aot.errors import WriteError
from aot.writing import hdf5
from aot.writing.disk import DiskFile
from aot.writing.reader import load
from tests.writing.test_hdf5 import block, write

CAPACITY = 100


class SmallDisk(FileIO):
    """Writes at most 7 bytes at once, as a network file system may, and nothing beyond CAPACITY bytes."""

    capacity: float = CAPACITY

    def write(self, data: Any, /) -> int:
        room = int(min(7, self.capacity - self.tell()))
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[:room])

    def truncate(self, size: int | None = None, /) -> int:
        if size is not None and size > self.capacity:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return super().truncate(size)


class FileOnSmallDisk(DiskFile, SmallDisk):
    """The file object on that disk."""


class FileOnSlowDisk(FileOnSmallDisk):
    """The same on a disk with enough space."""

    capacity = float("inf")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a"
    path.touch()
    return path


def read(disk: DiskFile, num_bytes: int) -> bytes:
    """Read as h5py does."""
    buffer = bytearray(num_bytes)
    return bytes(buffer[: disk.readinto(buffer)])


def test_short_writes_are_continued(path: Path) -> None:
    content = bytes(range(64))
    with FileOnSmallDisk(path) as disk:
        assert disk.write(content) == 64
        assert disk.tell() == 64
        assert disk.error is None
    assert path.read_bytes() == content


def test_bytes_that_did_not_reach_the_disk_are_read_back(path: Path) -> None:
    content = bytes(range(CAPACITY + 60))
    with FileOnSmallDisk(path) as disk:
        disk.write(content[:90])
        disk.seek(90)
        assert disk.write(content[90:]) == 70, "HDF5 must not see the error"
        assert disk.error is not None
        assert disk.error.errno == errno.ENOSPC
        for start, num_bytes in [(0, 160), (95, 65), (80, 30), (120, 20), (159, 1), (150, 99), (0, 90), (10, 5)]:
            disk.seek(start)
            assert read(disk, num_bytes) == content[start : start + num_bytes], (start, num_bytes)
    assert path.read_bytes() == content[:CAPACITY]


def test_nothing_is_written_after_the_first_error(path: Path) -> None:
    with FileOnSmallDisk(path) as disk:
        disk.seek(CAPACITY)
        disk.write(b"beyond")
        first = disk.error
        disk.seek(0)
        disk.write(b"before")
        disk.truncate(CAPACITY + 1)
        assert disk.error is first, "the first error is the cause"
        disk.seek(0)
        assert read(disk, 6) == b"before"
    assert b"before" not in path.read_bytes()


def test_read_that_ends_where_unwritten_bytes_begin_returns_none_of_them(path: Path) -> None:
    with FileOnSmallDisk(path) as disk:
        disk.seek(CAPACITY)
        disk.write(b"beyond")
        disk.seek(0)
        assert read(disk, CAPACITY) == b"", "the file is empty"


def test_later_bytes_replace_earlier_ones_in_memory(path: Path) -> None:
    with FileOnSmallDisk(path) as disk:
        disk.seek(CAPACITY)
        disk.write(b"old old old")
        disk.seek(CAPACITY + 4)
        disk.write(b"new")
        disk.seek(CAPACITY)
        assert read(disk, 11) == b"old new old"


def test_failed_change_of_the_size_is_an_error(path: Path) -> None:
    with FileOnSmallDisk(path) as disk:
        assert disk.truncate(CAPACITY) == CAPACITY
        assert disk.error is None
        disk.truncate(CAPACITY + 1)
        assert disk.error is not None
        assert disk.error.errno == errno.EDQUOT
    assert path.stat().st_size == CAPACITY


def test_a_result_on_a_disk_with_short_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "DiskFile", FileOnSlowDisk)
    masks = block([0, 3, 6, 9], [2, 7])
    write(tmp_path / "a.h5", [masks])
    result = load(tmp_path / "a.h5")
    assert result.masks is not None
    np.testing.assert_array_equal(result.masks, masks.masks)


@pytest.mark.parametrize("failing", [0, 9])
def test_a_failed_write_refuses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    numbers = itertools.count()

    class FailingDisk(FileIO):
        def write(self, data: Any, /) -> int:
            if next(numbers) == failing:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().write(data)

    monkeypatch.setattr(hdf5, "DiskFile", type("FileOnFailingDisk", (DiskFile, FailingDisk), {}))
    with pytest.raises(WriteError, match=r"a\.h5 could not be written: the disk or the network file system reports"):
        write(tmp_path / "a.h5", [block([0, 3, 6, 9], [2, 7])])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_change_of_the_size_refuses_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoResize(FileIO):
        def truncate(self, size: int | None = None, /) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hdf5, "DiskFile", type("FileOnNoResize", (DiskFile, NoResize), {}))
    with pytest.raises(WriteError, match=r"a\.h5 could not be written: the disk is full"):
        write(tmp_path / "a.h5", [block([0, 3, 6, 9], [2, 7])])
    assert list(tmp_path.iterdir()) == []
