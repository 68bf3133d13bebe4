"""Read and check clips' HDF5 files; a file that cannot be read raises ResultError."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from aot.errors import ResultError
from aot.system.nearest import path_suggestion
from aot.system.os_errors import os_problem, os_reason
from aot.types import BoolArray, ClipResult, Float32Array, Int32Array, Int64Array
from aot.writing.schema import attributes_of, check_schema, check_structure, plain, read_names, read_result

# NFS and Lustre often have no working locks. None are needed: a file gets its name only when it is complete. The
# environment variable HDF5_USE_FILE_LOCKING takes precedence if it is set.
_UNLOCKED: dict[str, Any] = {"locking": False}

_EXPECTED = "expected clips/<clip_id>.h5 of a run folder"
_REPAIR = "to compute it again, delete it and run the same aot.run command"

# What h5py raises on damaged files and on files of other formats.
_DAMAGED = (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError)
# A damaged header may give an absurd size, for which memory cannot be allocated.
_UNREADABLE = (*_DAMAGED, MemoryError)


def load(path: str | Path, *, masks: bool | Literal["lazy"] = True, keeps: object = None) -> ClipResult:
    """Read one clip's result.

    Args:
        path: a file `clips/<clip_id>.h5` of a run folder.
        masks: True reads them into memory (T·K·H·W bytes, most of the file); "lazy" reads each mask when it is
            indexed; False does not read them (`masks` of the result is None).
        keeps: an object that lives as long as lazy masks do, such as a temporary folder with the file.
    Raises:
        ResultError: the file cannot be read, is incomplete, or has the schema of another version.
        ValueError: `masks` has another value.
    """
    if masks not in (True, False, "lazy"):
        raise ValueError(f"masks={masks!r}: expected True, False or 'lazy'")
    path = Path(path)
    with _opened(path) as file:
        check_schema(path, file)
        result = read_result(file, with_masks=masks is True)
        shape = file["masks/data"].shape
    return result if masks != "lazy" else replace(result, masks=LazyMasks(path, shape, keeps=keeps))


def check_file(path: Path) -> None:
    """Check that a file is a complete result: datasets, attributes, shapes and values, without reading the masks.

    Raises:
        OtherSchema: the file has the schema of another version.
        ResultError: the file is damaged or incomplete; the message describes the problem.
    """
    with _opened(path) as file:
        check_structure(path, file)


def check_contents(path: Path) -> None:
    """Read every chunk of a file; decompression fails for damaged chunks.

    Raises:
        ResultError: a dataset cannot be read; the message names it.
    """
    with _opened(path) as file:
        for name in _dataset_names(file):
            try:
                for row in range(file[name].shape[0]):
                    file[name][row]
            except _UNREADABLE as exc:
                raise ResultError(f"{path}: {name} cannot be read; the file is damaged; {_REPAIR}") from exc


def read_attributes(path: Path) -> dict[str, Any]:
    """Read only the root attributes, which is fast even for many files.

    Raises:
        ResultError: the file cannot be read.
    """
    with _opened(path) as file:
        return attributes_of(file)


def read_object_names(path: Path) -> tuple[str, ...]:
    """Read the K names of the objects; empty where an object has none.

    Raises:
        ResultError: the file cannot be read.
    """
    with _opened(path) as file:
        return read_names(file)


def read_overview(path: Path, attributes: Sequence[str]) -> dict[str, Any]:
    """Read what a table of clips shows: sizes, names of the objects, number of failed objects, some attributes.

    Args:
        path: the clip's file.
        attributes: names of root attributes to include; those that the file lacks are omitted.
    Returns:
        num_frames, num_objects, num_points, object_names, num_failed_objects, and the attributes by their names.
    Raises:
        ResultError: the file cannot be read.
    """
    with _opened(path) as file:
        return {
            "num_frames": file["frames/index"].shape[0],
            "num_objects": file["objects/id"].shape[0],
            "num_points": file["tracks/query"].shape[0],
            "object_names": read_names(file),
            "num_failed_objects": sum(map(bool, file["objects/error"].asstr()[()])),
            **{name: plain(file.attrs[name]) for name in attributes if name in file.attrs},
        }


@dataclass(frozen=True)
class ClipTracks:
    """The tracks of a clip, without what learning does not need; T frames, N points."""

    index: Int64Array
    """(T,) source frames."""
    xy: Float32Array
    """(T, N, 2) px of the source."""
    valid: BoolArray
    """(T, N) where a track is visible and still on its object."""
    object_id: Int32Array
    """(N,) of the tracks."""
    attributes: dict[str, Any]
    """Those of the file that name the clip, its source and its size."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the source, px."""
        return int(self.attributes["width"]), int(self.attributes["height"])

    @property
    def num_bytes(self) -> int:
        """Memory of the positions and their validity."""
        return self.xy.nbytes + self.valid.nbytes


# Each attribute takes some 0.05 ms.
_SOURCE_ATTRIBUTES = ("clip_id", "source", "fps", "width", "height", "frame_pattern", "stream")


def bytes_of_tracks(num_frames: int, num_points: int) -> int:
    """`ClipTracks.num_bytes` of a clip that has not been read: two float32 and a bool per position."""
    return num_frames * num_points * 9


def read_tracks(path: Path) -> ClipTracks:
    """Read only the positions and the validity of a file's tracks.

    Raises:
        ResultError: the file cannot be read.
    """
    with _opened(path) as file:
        check_schema(path, file)
        tracks = file["tracks"]
        return ClipTracks(
            index=file["frames/index"][()],
            xy=tracks["xy"][()],
            valid=tracks["valid" if "valid" in tracks else "visible"][()],
            object_id=tracks["object_id"][()],
            attributes={name: plain(file.attrs[name]) for name in _SOURCE_ATTRIBUTES if name in file.attrs},
        )


class LazyMasks:
    """Masks that are read from the file when they are indexed; see `aot.types.MaskArray`.

    The file is opened for each access, so that the object can be pickled for other processes and thousands of them
    do not use up file handles.

    Args:
        path: the clip's file.
        shape: (Tm, K, H, W) of the dataset in the file.
        rows: positions along Tm that this array shows; None: all.
        columns: positions along K that this array shows; None: all.
        keeps: see `load`.
    """

    dtype = np.dtype(np.bool_)

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        rows: Int64Array | None = None,
        columns: Int64Array | None = None,
        keeps: object = None,
    ) -> None:
        self._path = path
        self._keeps = keeps
        self._rows = np.arange(shape[0], dtype=np.int64) if rows is None else rows
        self._columns = np.arange(shape[1], dtype=np.int64) if columns is None else columns
        self.shape: tuple[int, ...] = (len(self._rows), len(self._columns), *shape[2:])

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> BoolArray:
        """Index like an array, without an ellipsis; only the chosen frames and objects are read.

        Raises:
            IndexError: an ellipsis, or more than four indices.
            ResultError: the masks cannot be read.
        """
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [one for one in keys if one is Ellipsis] or len(keys) > self.ndim:
            raise IndexError(f"masks[{key}]: expected up to {self.ndim} indices, without an ellipsis")
        rows, columns = self._rows[keys[0]], self._columns[keys[1] if len(keys) > 1 else slice(None)]
        found = np.empty((rows.size, columns.size, *self.shape[2:]), dtype=np.bool_)
        with _opened(self._path) as file:
            data = file["masks/data"]
            for i, row in enumerate(np.atleast_1d(rows).tolist()):
                for k, column in enumerate(np.atleast_1d(columns).tolist()):
                    found[i, k] = data[row, column]
        found = found.reshape(*rows.shape, *columns.shape, *self.shape[2:])
        inner = (*(slice(None),) * (rows.ndim + columns.ndim), *keys[2:])
        return np.asarray(found[inner])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"LazyMasks({self.shape} bool in {self._path})"

    def take(self, rows: Int64Array, columns: Int64Array) -> LazyMasks:
        """Select frames (positions along Tm) and objects (positions along K) without reading them."""
        return LazyMasks(self._path, self.shape, self._rows[rows], self._columns[columns], self._keeps)


class MaskReader:
    """Reads the masks of a file one frame at a time; a context manager that keeps the file open.

    Args:
        path: the clip's file.
    Attributes:
        index: (Tm,) source frames that have masks.
        object_id: (K,) the objects, in the order of the masks.
    Raises:
        ResultError: the file cannot be read; also from its methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _read_errors(path, _DAMAGED):
            self._file = _open_file(path)
            self._masks = self._file["masks/data"]
            rows = self._file["masks/row"][()].tolist()
            self._position = {row: position for position, row in enumerate(rows)}
            self.index: Int64Array = self._file["frames/index"][()][rows]
            self.object_id = self._file["objects/id"][()]

    def row(self, row: int) -> BoolArray | None:
        """(K, H, W) masks of a row of `frames`; None if the row has no masks."""
        position = self._position.get(row)
        return None if position is None else self._read(position)

    def __iter__(self) -> Iterator[tuple[int, BoolArray]]:
        """Pairs of (source frame, (K, H, W) masks), in ascending order."""
        for position, frame in enumerate(self.index):
            yield int(frame), self._read(position)

    def __enter__(self) -> MaskReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, position: int) -> BoolArray:
        with _read_errors(self._path, _DAMAGED):
            return np.asarray(self._masks[position])


def _dataset_names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    with _read_errors(path, _UNREADABLE), _open_file(path) as file:
        yield file


def _open_file(path: Path) -> h5py.File:
    """Open a file of HDF5.

    Raises:
        ResultError: the file does not exist, cannot be read, or is not a complete HDF5 file.
    """
    try:
        return h5py.File(path, "r", **_UNLOCKED)
    except _DAMAGED as exc:
        raise ResultError(f"{path} {_unopened_reason(path)}") from exc


def _unopened_reason(path: Path) -> str:
    """Why a file cannot be opened, and what to do; the errors of the HDF5 library name its own calls and buffers."""
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as exc:
        if isinstance(exc, FileNotFoundError | IsADirectoryError):  # the path is wrong, so the expected one helps
            return f"cannot be read: {os_reason(exc)}; {_EXPECTED}{'' if path.exists() else path_suggestion(path)}"
        return f"cannot be read: {os_problem(exc)}"
    if is_empty:
        return f"is an empty file; {_EXPECTED}; {_REPAIR}"
    if not h5py.is_hdf5(path):
        return f"is not an HDF5 file; {_EXPECTED}"
    return f"cannot be read: it is damaged or cut off; {_EXPECTED}; {_REPAIR}"


@contextmanager
def _read_errors(path: Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    """Map errors of h5py to a ResultError that names the file and what it lacks, not the calls of the library."""
    try:
        yield
    except errors as exc:
        if isinstance(exc, MemoryError):
            reason = "it needs more memory than is free"
        elif isinstance(exc, OSError):
            reason = os_reason(exc, otherwise="its content is damaged")
        else:
            reason = "it lacks datasets or attributes of a result, or has others"
        raise ResultError(f"{path} cannot be read as a result: {reason}; {_EXPECTED}; {_REPAIR}") from exc
