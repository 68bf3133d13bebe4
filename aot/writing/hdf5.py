"""The HDF5 file of one clip: schema "aot/1", written, checked and read here and nowhere else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from aot.errors import WriteError
from aot.manifest.serialize import prompts_as_json
from aot.system.files import replacing, write_errors
from aot.types import BoolArray, Clip, ClipResult, Float64Array, Int64Array, MaskBlock, QueryPoints, Tracks

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

SCHEMA = "aot/1"

# Level 1 takes a third of the default level's time on masks for a few per cent more bytes; any HDF5 library reads it.
_GZIP: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}

# NFS and Lustre often have no working locks. A file gets its name only when it is whole, so none are needed; the
# environment variable HDF5_USE_FILE_LOCKING, where set, wins over this.
_UNLOCKED: dict[str, Any] = {"locking": False}

# What h5py raises on files that are damaged or something else; MemoryError where a size in them is absurd.
_UNREADABLE = (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError, MemoryError)

_ATTRIBUTES = frozenset(
    "schema clip_id source source_sha256 width height fps num_source_frames frame_interval_requested frame_interval "
    "config_yaml config_hash versions device attempts seconds peak_memory_bytes created".split()
)


_COUNTS = ("width", "height", "num_source_frames", "frame_interval_requested", "frame_interval")


class OtherSchema(WriteError):
    """The file is one of another version of aot; this one cannot say whether it is whole."""


class _Disk(FileIO):
    """The file under HDF5. A write that fails is kept in `error` and in memory; HDF5 is told that all went well.

    For HDF5 does not get over a failed write: whatever is closed afterwards tries it again, complains on the terminal
    past any handler, and in the end the process crashes. It also crashes where it does not read what it wrote.
    """

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self._lost: list[tuple[int, bytes]] = []
        """(offset, bytes) that are not on the disk; the writer gives up soon after the first."""

    def write(self, data: ReadableBuffer, /) -> int:
        whole = memoryview(data).cast("B")
        start, left = self.tell(), whole
        try:
            while self.error is None and left:
                left = left[super().write(left) :]
        except OSError as exc:
            self.error = exc
        if self.error:
            self._lost.append((start, bytes(whole)))
        return len(whole)

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        start, found = self.tell(), memoryview(buffer).cast("B")
        size = super().readinto(found)
        for offset, data in self._lost:
            begin, end = max(offset, start), min(offset + len(data), start + len(found))
            if begin < end:
                found[begin - start : end - start] = data[begin - offset : end - offset]
                size = max(size, end - start)
        return size

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as exc:
            self.error = self.error or exc
            return self.tell()


class Hdf5Writer:
    """Fills one clip's open file; see `ClipWriter` and `new_clip_file`."""

    def __init__(self, path: Path, disk: _Disk, file: h5py.File, clip: Clip, mask_index: Int64Array) -> None:
        self._path = path
        self._disk = disk
        self._file = file
        self._clip = clip
        self._row_of = {int(frame): row for row, frame in enumerate(mask_index)}
        self._column_of = {object_id: column for column, object_id in enumerate(clip.object_ids)}

    def write_masks(self, block: MaskBlock) -> None:
        data, scores = self._file["masks/data"], self._file["masks/score"]
        columns = [self._column_of[int(object_id)] for object_id in block.object_id]
        rows = [self._row_of[int(frame)] for frame in block.index]
        with _hdf5_errors(self._path, self._disk):
            for row, masks, score in zip(rows, block.masks, block.score):
                for column, mask, value in zip(columns, masks, score):
                    data[row, column] = mask
                    scores[row, column] = value

    def read_masks(self, frame: int) -> BoolArray | None:
        row = self._row_of.get(int(frame))
        return None if row is None else np.asarray(self._file["masks/data"][row])

    def write_tracks(self, tracks: Tracks, queries: QueryPoints, in_mask: BoolArray) -> None:
        compressed = {
            "xy": tracks.xy,
            "visible": tracks.visible,
            "visibility": tracks.visibility.astype(np.float16),
            "confidence": tracks.confidence.astype(np.float16),
            "in_mask": in_mask,
        }
        with _hdf5_errors(self._path, self._disk):
            for name, values in compressed.items():
                self._file.create_dataset(f"tracks/{name}", data=values, shuffle=True, **_GZIP)
            self._file["tracks/query"] = queries.txy
            self._file["tracks/object_id"] = queries.object_id

    def write_provenance(self, attributes: Mapping[str, Any], object_errors: Mapping[int, str]) -> None:
        errors = [object_errors.get(object_id, "") for object_id in self._clip.object_ids]
        with _hdf5_errors(self._path, self._disk):
            self._file.create_dataset("objects/error", data=errors, dtype=h5py.string_dtype())
            self._file.attrs["schema"] = SCHEMA
            for name, value in attributes.items():
                self._file.attrs[name] = value


@contextmanager
def new_clip_file(
    path: Path,
    clip: Clip,
    *,
    index: Int64Array,
    time: Float64Array,
    mask_index: Int64Array,
    height: int,
    width: int,
) -> Iterator[Hdf5Writer]:
    """Make a clip's file under a temporary name; when the block ends well it is checked and gets its own.

    Args:
        path: where the whole file will lie.
        clip: its prompts are recorded.
        index, time: (T,) kept source frames and their presentation times in s.
        mask_index: (Tm,) those of them that will have masks, ascending.
        height, width: of the source, px.
    Raises:
        WriteError: the folder cannot be written, the disk is full, or the file is not whole.
    """
    with replacing(path) as part:
        with _Disk(part) as disk:
            with h5py.File(disk, "w") as file:
                with _hdf5_errors(path, disk):
                    _create_datasets(file, clip, index, time, mask_index, (height, width))
                yield Hdf5Writer(path, disk, file, clip, mask_index)
            _raise_failed_write(path, disk)
        check_file(part)


def check_file(path: Path) -> None:
    """Check that a clip's file has every dataset and attribute of the schema, in shapes and with values that agree.

    Raises:
        OtherSchema: it follows another one.
        WriteError: naming what is wrong.
    """
    try:
        with h5py.File(path, "r", **_UNLOCKED) as file:
            _check_schema(path, file)
            missing = sorted(_ATTRIBUTES - set(file.attrs))
            if missing:
                raise WriteError(f"{path}: the attributes {', '.join(missing)} are missing; the file is not whole")
            result = _read(file, with_masks=False)
            _check_values(path, result)
            masks = file["masks/data"]
            expected = (len(result.mask_row), len(result.object_id), file.attrs["height"], file.attrs["width"])
            if masks.shape != expected or masks.dtype != np.bool_:
                raise WriteError(f"{path}: masks/data is {masks.shape} {masks.dtype}, expected {expected} bool")
    except _UNREADABLE as exc:
        raise WriteError(
            f"{path} is not a whole result file ({exc}); delete it and run the same command again"
        ) from exc


def _check_schema(path: Path, file: h5py.File) -> None:
    schema = file.attrs.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise OtherSchema(
            f"{path}: schema {schema!r}, expected {SCHEMA!r}: read it with the version of aot that made it"
        )


def _check_values(path: Path, result: ClipResult) -> None:
    """Counts are counts, what ascends ascends, what points at rows or objects finds some, and prompts are prompts."""
    for name in _COUNTS:
        value = result.attributes[name]
        if not isinstance(value, int) or value < 1:
            raise WriteError(f"{path}: {name} is {value!r}, expected a whole number from 1")
    objects = result.object_id
    ascending = {"frames/index": result.index, "frames/time": result.time, "masks/row": result.mask_row}
    wrong = [name for name, values in ascending.items() if not (np.diff(values) > 0).all()]
    wrong += ["objects/id"] if (objects < 1).any() or len(set(objects.tolist())) < len(objects) else []
    wrong += ["masks/row"] if not set(result.mask_row.tolist()) <= set(range(len(result.index))) else []
    wrong += ["tracks/object_id"] if not set(result.track_object_id.tolist()) <= set(objects.tolist()) else []
    wrong += ["objects/prompt"] if not all(map(_are_prompts, result.object_prompts)) else []
    if wrong:
        raise WriteError(
            f"{path}: {', '.join(dict.fromkeys(wrong))}: values that cannot be; expected ascending frames, times and "
            f"rows, object ids from 1 that differ, points of these objects, and prompts on frames"
        )


def _are_prompts(found: Any) -> bool:
    """Whether it is an object's list of prompts, as far as others count on it: their frames, and those of queries."""
    if not isinstance(found, list) or not all(isinstance(prompt, dict) for prompt in found):
        return False
    queries = [prompt.get("query_points", []) for prompt in found]
    if not all(isinstance(points, list) and all(isinstance(one, list) and one for one in points) for points in queries):
        return False
    frames = [prompt.get("frame") for prompt in found] + [query[0] for points in queries for query in points]
    return all(isinstance(frame, int | float) and math.isfinite(frame) for frame in frames)


def check_contents(path: Path) -> None:
    """Read every chunk of a clip's file; a compressed chunk that has changed does not unpack.

    Raises:
        WriteError: naming the dataset that cannot be read.
    """
    name = "its list of datasets"
    try:
        with h5py.File(path, "r", **_UNLOCKED) as file:
            for name in _datasets_of(file):
                for row in range(file[name].shape[0]):
                    file[name][row]
    except _UNREADABLE as exc:
        raise WriteError(f"{path}: {name} cannot be read ({exc}); the file is damaged") from exc


def load(path: str | Path, *, masks: bool | Literal["lazy"] = True) -> ClipResult:
    """Read one clip's result.

    Args:
        path: a file `clips/<clip_id>.h5` of a run folder.
        masks: they are the bulk: T·K·H·W bytes in memory. "lazy" reads what is indexed, when it is; False leaves them.
    Raises:
        WriteError: the file is not a whole result.
        ValueError: masks is none of these.
    """
    if masks not in (True, False, "lazy"):
        raise ValueError(f"masks={masks!r}: expected True, False or 'lazy'")
    path = Path(path)
    with _read_errors(path), h5py.File(path, "r", **_UNLOCKED) as file:
        _check_schema(path, file)
        found = _read(file, with_masks=masks is True)
        shape = file["masks/data"].shape
    return found if masks != "lazy" else replace(found, masks=LazyMasks(path, shape))


class LazyMasks:
    """Masks that stay in their file until they are indexed; see `aot.types.MaskArray`.

    The file is opened anew each time, so that it can be sent to other processes and thousands may be held.
    """

    dtype = np.dtype(np.bool_)

    def __init__(
        self,
        path: Path,
        shape: tuple[int, ...],
        rows: Int64Array | None = None,
        columns: Int64Array | None = None,
    ) -> None:
        self._path = path
        self._rows = np.arange(shape[0], dtype=np.int64) if rows is None else rows
        self._columns = np.arange(shape[1], dtype=np.int64) if columns is None else columns
        self.shape: tuple[int, ...] = (len(self._rows), len(self._columns), *shape[2:])

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> BoolArray:
        """As of an array; only the frames and objects that are asked for are read."""
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [one for one in keys if one is Ellipsis] or len(keys) > self.ndim:
            raise IndexError(f"masks[{key}]: expected up to {self.ndim} indices, without an ellipsis")
        rows, columns = self._rows[keys[0]], self._columns[keys[1] if len(keys) > 1 else slice(None)]
        found = np.empty((rows.size, columns.size, *self.shape[2:]), dtype=np.bool_)
        with _read_errors(self._path), h5py.File(self._path, "r", **_UNLOCKED) as file:
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
        """The masks of some frames and objects, still unread."""
        return LazyMasks(self._path, self.shape, self._rows[rows], self._columns[columns])


class MaskReader:
    """A file's masks, one frame in memory at a time; a context.

    Attributes:
        index: (Tm,) source frames that have masks.
        object_id: (K,) the objects, in the order of the masks.
    """

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path, "r", **_UNLOCKED)
        self._rows = self._file["masks/row"][()].tolist()
        self._position = {row: position for position, row in enumerate(self._rows)}
        self.index: Int64Array = self._file["frames/index"][()][self._rows]
        self.object_id = self._file["objects/id"][()]

    def row(self, row: int) -> BoolArray | None:
        """(K, H, W) masks of a row of `frames`; None where it has none."""
        position = self._position.get(row)
        return None if position is None else np.asarray(self._file["masks/data"][position])

    def __iter__(self) -> Iterator[tuple[int, BoolArray]]:
        """Pairs of (source frame, (K, H, W) masks), ascending."""
        for position, frame in enumerate(self.index):
            yield int(frame), np.asarray(self._file["masks/data"][position])

    def __enter__(self) -> MaskReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def read_attributes(path: Path) -> dict[str, Any]:
    """The provenance alone, for those who look at many files."""
    with h5py.File(path, "r", **_UNLOCKED) as file:
        return _attributes(file)


def read_object_names(path: Path) -> tuple[str, ...]:
    """K names, empty where none was given.

    Raises:
        WriteError: the file is not a whole result.
    """
    with _read_errors(path), h5py.File(path, "r", **_UNLOCKED) as file:
        return tuple(file["objects/name"].asstr()[()])


def read_overview(path: Path, attributes: Sequence[str]) -> dict[str, Any]:
    """What can be told of a clip without reading its arrays: sizes, its objects' names, how many of them failed.

    Args:
        attributes: names of those that are wanted too; one that the file lacks is left out.
    Raises:
        WriteError: the file is not a whole result.
    """
    with _read_errors(path), h5py.File(path, "r", **_UNLOCKED) as file:
        return {
            "num_frames": file["frames/index"].shape[0],
            "num_objects": file["objects/id"].shape[0],
            "num_points": file["tracks/query"].shape[0],
            "object_names": tuple(file["objects/name"].asstr()[()]),
            "num_failed_objects": sum(map(bool, file["objects/error"].asstr()[()])),
            **{name: _plain(file.attrs[name]) for name in attributes if name in file.attrs},
        }


def _create_datasets(
    file: h5py.File,
    clip: Clip,
    index: Int64Array,
    time: Float64Array,
    mask_index: Int64Array,
    size: tuple[int, int],
) -> None:
    object_ids = clip.object_ids
    by_object = [[prompt for prompt in clip.prompts if prompt.object_id == object_id] for object_id in object_ids]
    names = [next((prompt.name for prompt in prompts if prompt.name), "") for prompts in by_object]
    file["frames/index"] = index
    file["frames/time"] = time
    file["objects/id"] = np.asarray(object_ids, dtype=np.int32)
    file.create_dataset("objects/name", data=names, dtype=h5py.string_dtype())
    written = [json.dumps(prompts_as_json(prompts)) for prompts in by_object]
    file.create_dataset("objects/prompt", data=written, dtype=h5py.string_dtype())
    shape = (len(mask_index), len(object_ids))
    # One chunk a mask: any frame of any object is read or written alone. What is never written reads as False.
    chunks = (1, 1, *size) if len(mask_index) else None
    file.create_dataset("masks/data", (*shape, *size), np.bool_, chunks=chunks, **(_GZIP if len(mask_index) else {}))
    file["masks/row"] = np.searchsorted(index, mask_index).astype(np.int64)
    file.create_dataset("masks/score", shape, np.float32, fillvalue=np.nan)


def _read(file: h5py.File, *, with_masks: bool) -> ClipResult:
    tracks = file["tracks"]
    return ClipResult(
        index=file["frames/index"][()],
        time=file["frames/time"][()],
        object_id=file["objects/id"][()],
        object_name=tuple(file["objects/name"].asstr()[()]),
        object_prompts=tuple(json.loads(text) for text in file["objects/prompt"].asstr()[()]),
        object_error=tuple(file["objects/error"].asstr()[()]),
        mask_row=file["masks/row"][()],
        masks=file["masks/data"][()] if with_masks else None,
        mask_score=file["masks/score"][()],
        query=tracks["query"][()],
        track_object_id=tracks["object_id"][()],
        tracks=Tracks(
            xy=tracks["xy"][()],
            visible=tracks["visible"][()],
            visibility=tracks["visibility"][()].astype(np.float32),
            confidence=tracks["confidence"][()].astype(np.float32),
        ),
        in_mask=tracks["in_mask"][()],
        attributes=_attributes(file),
    )


def _datasets_of(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _attributes(file: h5py.File) -> dict[str, Any]:
    return {name: _plain(value) for name, value in file.attrs.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as exc:
        raise WriteError(f"{path} cannot be read as a result ({exc}); expected clips/<clip_id>.h5 of a run") from exc


@contextmanager
def _hdf5_errors(path: Path, disk: _Disk) -> Iterator[None]:
    """Turn what HDF5 complains of, and what the disk under it did not take, into a WriteError."""
    with write_errors(path):
        try:
            yield
        except RuntimeError as exc:  # HDF5's word for much
            raise WriteError(f"{path} could not be written: {exc}") from exc
    _raise_failed_write(path, disk)


def _raise_failed_write(path: Path, disk: _Disk) -> None:
    if disk.error:
        with write_errors(path):
            raise disk.error
