"""Write a clip's HDF5 file; `aot.writing.schema` defines its layout, `aot.writing.reader` reads it.

Masks are compressed and written by a thread, while the next ones are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aot.errors import ResultError, WriteError
from aot.images.compact import NO_MASK, CompactMask
from aot.lifetimes import Lifetimes
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason, what_to_check
from aot.types import BoolArray, Clip, Float32Array, Float64Array, Int64Array, MaskBlock, QueryPoints, Tracks
from aot.writing.behind import WriteBehind
from aot.writing.disk import DiskFile
from aot.writing.reader import check_file
from aot.writing.schema import GZIP, SCHEMA, create_datasets

# Two frames of 16 objects at 1080p: the thread always has something to do, and blocks of that size are the largest.
MAX_QUEUED_BYTES = 64 * 2**20


class Hdf5Writer:
    """Writes to one clip's open file; created by `new_clip_file`. See `ClipWriter`.

    Args:
        path: the final path of the file, named in messages.
        disk: the file object below `file`; checked for failed writes after each operation.
        file: open for writing, with the datasets of `create_datasets`.
        behind: the thread that writes the masks.
        clip: its objects decide the columns of the masks.
        mask_index: (Tm,) source frames that will have masks, ascending.
        kept_mask_bytes: of compact masks that are kept in memory; the others are read back from the file.
    """

    def __init__(
        self,
        path: Path,
        disk: DiskFile,
        file: h5py.File,
        behind: WriteBehind,
        clip: Clip,
        mask_index: Int64Array,
        kept_mask_bytes: int,
    ) -> None:
        self._path = path
        self._disk = disk
        self._file = file
        self._masks = file["masks/data"]
        self._scores: Float32Array = np.full(self._masks.shape[:2], np.nan, np.float32)
        self._behind = behind
        self._clip = clip
        self._bytes_left = kept_mask_bytes
        self._kept: dict[tuple[int, int], CompactMask] = {}
        """(row, column) → mask."""
        self._written: set[tuple[int, int]] = set()
        self._row_of = {int(frame): row for row, frame in enumerate(mask_index)}
        self._column_of = {object_id: column for column, object_id in enumerate(clip.object_ids)}

    def write_masks(self, block: MaskBlock) -> None:
        columns = [self._column_of[int(object_id)] for object_id in block.object_id]
        rows = [self._row_of[int(frame)] for frame in block.index]
        for row, score in zip(rows, block.score):
            self._scores[row, columns] = score
        self._behind.submit(partial(self._store_masks, rows, columns, block), block.masks.nbytes)

    def masks(self, frame: int) -> tuple[CompactMask, ...] | None:
        row = self._row_of.get(int(frame))
        if row is None:
            return None
        self._behind.wait()
        return tuple(self._mask(row, column) for column in range(len(self._column_of)))

    def _store_masks(self, rows: Sequence[int], columns: Sequence[int], block: MaskBlock) -> None:
        with _hdf5_errors(self._path, self._disk):
            for row, masks in zip(rows, block.masks):
                for column, mask in zip(columns, masks):
                    self._masks[row, column] = mask
                    self._keep((row, column), CompactMask.of(mask))

    def _keep(self, place: tuple[int, int], mask: CompactMask) -> None:
        self._written.add(place)
        if mask.num_bytes <= self._bytes_left:
            self._bytes_left -= mask.num_bytes
            self._kept[place] = mask

    def _mask(self, row: int, column: int) -> CompactMask:
        kept = self._kept.get((row, column))
        if kept is not None:
            return kept
        if (row, column) not in self._written:
            return NO_MASK
        with _hdf5_errors(self._path, self._disk):
            return CompactMask.of(np.asarray(self._masks[row, column]))

    def write_tracks(
        self,
        tracks: Tracks,
        queries: QueryPoints,
        in_mask: BoolArray,
        lifetimes: Lifetimes,
        coverage: Float64Array,
    ) -> None:
        compressed = {
            "xy": tracks.xy,
            "visible": tracks.visible,
            "visibility": tracks.visibility.astype(np.float16),
            "confidence": tracks.confidence.astype(np.float16),
            "in_mask": in_mask,
            "valid": lifetimes.valid,
        }
        with _hdf5_errors(self._path, self._disk):
            for name, values in compressed.items():
                self._file.create_dataset(f"tracks/{name}", data=values, shuffle=True, **GZIP)
            self._file["tracks/query"] = queries.txy
            self._file["tracks/object_id"] = queries.object_id
            self._file["tracks/born"] = lifetimes.born
            self._file["tracks/ended"] = lifetimes.ended
            self._file["masks/coverage"] = coverage[self._file["masks/row"][()]].astype(np.float32)

    def write_provenance(self, attributes: Mapping[str, Any], object_errors: Mapping[int, str]) -> None:
        errors = [object_errors.get(object_id, "") for object_id in self._clip.object_ids]
        with _hdf5_errors(self._path, self._disk):
            self._file["masks/score"][...] = self._scores
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
    kept_mask_bytes: int = 0,
) -> Iterator[Hdf5Writer]:
    """Create a clip's file under a temporary name; it is checked and renamed when the block ends without an error.

    Args:
        path: the final path of the file.
        clip: its objects and their prompts are recorded.
        index, time: (T,) kept source frames, and their presentation times in s.
        mask_index: (Tm,) the source frames among them that will have masks, ascending.
        height, width: of the source, px.
        kept_mask_bytes: see `Hdf5Writer`.
    Yields:
        The writer of the file.
    Raises:
        WriteError: the folder cannot be written, the disk is full, or the file is incomplete when the block ends.
    """
    with replacing(path) as part:
        with DiskFile(part) as disk:
            with h5py.File(disk, "w") as file:
                with _hdf5_errors(path, disk):
                    create_datasets(file, clip, index, time, mask_index, (height, width))
                with WriteBehind(MAX_QUEUED_BYTES) as behind:
                    yield Hdf5Writer(path, disk, file, behind, clip, mask_index, kept_mask_bytes)
            _raise_failed_write(path, disk)
        try:
            check_file(part)
        except ResultError as error:
            raise WriteError(f"{path} was not written completely: {error}") from error


@contextmanager
def _hdf5_errors(path: Path, disk: DiskFile) -> Iterator[None]:
    """Map errors of HDF5, and failed writes of the file below it, to WriteError."""
    try:
        yield
    except (OSError, RuntimeError) as exc:  # h5py raises RuntimeError for many different errors of HDF5
        reason = os_reason(exc, otherwise="the HDF5 library reports an error, which is in the log of the run")
        next_step = what_to_check(exc, otherwise="check the disk, and run the same command again")
        raise WriteError(f"{path} could not be written: {reason}; {next_step}") from exc
    _raise_failed_write(path, disk)


def _raise_failed_write(path: Path, disk: DiskFile) -> None:
    if disk.error:
        with write_errors(path):
            raise disk.error
