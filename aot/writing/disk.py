"""The file object that h5py writes to, which survives failed writes."""

from __future__ import annotations

from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class DiskFile(FileIO):
    """A file for h5py that reports every write as successful; the first write error is kept in `error`.

    The HDF5 library does not recover from a failed write: every later close retries it, prints to the terminal
    past any error handler, and finally crashes the process. It also crashes when it cannot read back what it wrote.
    Therefore bytes that did not reach the disk are kept in memory and returned by later reads; the caller must check
    `error` after each operation and stop writing at the first error.

    Args:
        path: an existing file, opened for reading and writing.
    """

    error: OSError | None = None
    """The first write that failed; None while all have succeeded."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self._unwritten: list[tuple[int, bytes]] = []
        """(offset, bytes) that could not be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        content = memoryview(data).cast("B")
        start, rest = self.tell(), content
        try:
            while self.error is None and rest:
                rest = rest[super().write(rest) :]
        except OSError as exc:
            self.error = exc
        if self.error:
            self._unwritten.append((start, bytes(content)))
        return len(content)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        start, target = self.tell(), memoryview(buffer).cast("B")
        size = super().readinto(target)
        for offset, data in self._unwritten:
            begin, end = max(offset, start), min(offset + len(data), start + len(target))
            if begin < end:
                target[begin - start : end - start] = data[begin - offset : end - offset]
                size = max(size, end - start)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as exc:
            self.error = self.error or exc
            return self.tell()
