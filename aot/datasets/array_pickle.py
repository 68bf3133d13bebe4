"""An unpickler for numpy arrays and plain containers that never runs code of the pickle.

A pickle is a program: unpickling may call any function that it names. Published datasets come as pickles of arrays, so
this unpickler knows arrays, bytes and plain containers, and refuses all other names. It is Python's own implementation
in Python: the one in C allocates gigabytes for a file of a few bytes that claims a large memo.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from aot.system.os_errors import os_reason

# Errors that the unpickler and numpy raise on malformed input.
_MALFORMED = (
    OSError, pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, ImportError, AttributeError,
    ArithmeticError, AssertionError, RecursionError, MemoryError, SystemError, SyntaxError, struct.error,
)  # fmt: skip
_DTYPE_NAME = re.compile(r"[<>|=]?(?:[biufS][0-9]{1,9}|O8?)")


def read_pickle(path: Path) -> Any:
    """Read a pickle of arrays and plain containers.

    Returns:
        Its content; every array in it is a `PickledArray`, see `as_array`.
    Raises:
        ValueError: the file cannot be read, is malformed, or uses a name that arrays do not need.
    """
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(_BoundedFile(file)).load()
    except _MALFORMED as exc:
        raise ValueError(_reason(exc)) from exc


class _Refused(pickle.UnpicklingError):
    """The pickle contains something that arrays do not need; the message is in plain words."""


def _reason(error: Exception) -> str:
    if isinstance(error, _Refused):
        return str(error)
    if isinstance(error, OSError):
        return os_reason(error)
    return "it is empty or cut off" if isinstance(error, EOFError) else "it is damaged or not a pickle"


def as_array(value: Any) -> Any:
    """The array of a `PickledArray`; any other value unchanged."""
    return value.array if isinstance(value, PickledArray) else value


class PickledArray:
    """Replacement for `numpy.ndarray`, whose own `__setstate__` writes to memory at addresses that the pickle gives."""

    array: NDArray[Any] = np.empty(0, dtype=np.uint8)
    """Empty until a state follows, which a malformed pickle may omit."""

    def __setstate__(self, state: Any) -> None:
        _, shape, element, is_fortran, content = state
        if isinstance(content, list):
            self.array = np.empty(len(content), dtype=object)
            self.array[:] = content
        else:
            self.array = np.frombuffer(content, element.dtype)
        self.array = self.array.reshape(shape, order="F" if is_fortran else "C")


class _DType:
    """Replacement for `numpy.dtype`: numbers, booleans, bytes and lists of objects only."""

    def __init__(self, name: str, align: bool = False, copy: bool = False) -> None:
        if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name):
            raise _Refused(f"it contains arrays of type {name!r}, expected numbers, booleans or bytes")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: Any) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    """Replacement for numpy's function; the state that follows contains shape and type."""
    return PickledArray()


def _from_buffer(content: Any, element: _DType, shape: Any, order: Literal["C", "F"]) -> PickledArray:
    pickled = PickledArray()
    pickled.array = np.frombuffer(content, element.dtype).reshape(shape, order=order)
    return pickled


def _scalar(element: _DType, content: bytes) -> Any:
    return np.frombuffer(content, element.dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Decode bytes, which the oldest protocols write as text."""
    return text.encode("latin-1")


# The names that pickled arrays use, before and since NumPy 2, and bytes in the oldest protocols.
_REPLACEMENTS = {
    ("numpy", "ndarray"): PickledArray, ("numpy", "dtype"): _DType, ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}  # fmt: skip


class _BoundedFile:
    """A file that refuses to read more bytes than it has, which would be allocated before the read fails."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._num_bytes = file, os.fstat(file.fileno()).st_size
        self.readline = file.readline

    def read(self, size: int = -1) -> bytes:
        if not self._num_bytes:
            raise EOFError
        if size > self._num_bytes:
            raise _Refused(
                f"it is damaged or cut off: a part of it claims {size} bytes, the file has {self._num_bytes}"
            )
        return self._file.read(size)


class _ArrayUnpickler(pickle._Unpickler):
    """Finds only the names in `_REPLACEMENTS`."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytearray(self.read(size)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _REPLACEMENTS:
            raise _Refused(f"it uses {module}.{name}, which arrays do not need")
        return _REPLACEMENTS[module, name]
