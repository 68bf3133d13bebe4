"""Add columns to the parquet files of a dataset; all other columns and the metadata of the files stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aot.errors import ConfigError, DatasetError
from aot.export.lerobot.episodes import EpisodeTracks
from aot.export.lerobot.features import Names
from aot.system.files import replacing, write_errors
from aot.system.os_errors import os_reason
from aot.types import Int64Array

_MAX_ROWS = 4096
_BATCH_BYTES = 2**26
_HUB = b"huggingface"

Columns = dict[str, Any]
"""Name → array of pyarrow."""


def require_pyarrow() -> None:
    """Raise a ConfigError unless pyarrow is installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as exc:
        raise ConfigError(
            "--format lerobot: frames are stored in parquet files, which need pyarrow: "
            "pip install 'auto-objects-tracker[lerobot]'"
        ) from exc


def add_columns(
    source: Path,
    target: Path,
    *,
    stale: Callable[[str], bool],
    new: Callable[[Any], Columns],
    hub_types: Mapping[str, Any],
) -> None:
    """Write a parquet file with other columns.

    Args:
        source: the file.
        target: to write; it gets the compression of the source.
        stale: whether to leave out a column of the source.
        new: called with every batch of rows, a table of pyarrow; returns the columns to add.
        hub_types: types of the new columns as the package `datasets` records them.
    Raises:
        DatasetError: the source cannot be read.
        WriteError: the target cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    with parquet_errors(source):
        file = pyarrow.parquet.ParquetFile(source)
        metadata = _with_types(file.schema_arrow.metadata or {}, stale, hub_types)
    with replacing(target) as part:
        writer = None
        for table in _batches(file, source):
            kept = table.select([name for name in table.column_names if not stale(name)])
            for name, values in new(table).items():
                kept = kept.append_column(name, values)
            kept = kept.replace_schema_metadata(metadata)
            with write_errors(target):
                if writer is None:
                    writer = pyarrow.parquet.ParquetWriter(part, kept.schema, compression=_compression(file))
                writer.write_table(kept)
        with write_errors(target):
            if writer is not None:
                writer.close()
    file.close()


def frame_columns(
    table: Any,
    *,
    path: Path,
    tracks: Sequence[tuple[Names, Callable[[int], EpisodeTracks]]],
    mask_paths: Mapping[str, Callable[[int], Sequence[str]]],
) -> Columns:
    """The columns that rows of frames get.

    Args:
        table: rows with the columns episode_index and frame_index.
        path: of the file, for messages.
        tracks: names of a camera, and episode number → its tracks.
        mask_paths: name of a column → (episode number → path per frame).
    Raises:
        DatasetError: a number is missing.
    """
    import pyarrow

    numbers, frames = (integers(table, name, path) for name in ("episode_index", "frame_index"))
    episodes = np.unique(numbers).tolist()
    columns: Columns = {}
    for names, read in tracks:
        gathered = [_gathered(read(number), frames[numbers == number]) for number in episodes]
        order = np.argsort(np.concatenate([np.flatnonzero(numbers == number) for number in episodes]))
        xy, visible, object_id = (np.concatenate(parts)[order] for parts in zip(*gathered))
        columns |= {names.tracks: _points_column(xy)}
        columns |= {names.visible: _flat_column(visible), names.object_id: _flat_column(object_id)}
    for name, read_paths in mask_paths.items():
        by_episode = {number: read_paths(number) for number in episodes}
        texts = [by_episode[number][frame] for number, frame in zip(numbers.tolist(), frames.tolist())]
        columns[name] = pyarrow.array(texts, type=pyarrow.string())
    return columns


def _gathered(tracks: EpisodeTracks, frames: Int64Array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    object_id = np.broadcast_to(tracks.object_id, (len(frames), len(tracks.object_id)))
    return tracks.xy[frames], tracks.visible[frames], object_id


def check_rows(files: Sequence[Path], episodes: Mapping[int, int | None]) -> dict[int, int]:
    """Number of frames of every episode, from the data files.

    Args:
        files: with one row per frame.
        episodes: number → length in the episode list; None: not given there.
    Raises:
        DatasetError: a file cannot be read, or has other frames than the episode list.
    """
    import pyarrow.parquet

    found: dict[int, list[Int64Array]] = {}
    for path in files:
        with parquet_errors(path):
            names = pyarrow.parquet.ParquetFile(path).schema_arrow.names
        missing = [name for name in ("episode_index", "frame_index") if name not in names]
        if missing:
            raise DatasetError(f"{path}: no column {', '.join(missing)}; expected one row per frame of LeRobot")
        with parquet_errors(path):
            table = pyarrow.parquet.ParquetFile(path).read(columns=["episode_index", "frame_index"])
        numbers, frames = (integers(table, name, path) for name in ("episode_index", "frame_index"))
        for number in np.unique(numbers).tolist():
            found.setdefault(number, []).append(frames[numbers == number])
    lengths = {}
    for number, length in episodes.items():
        frames = np.sort(np.concatenate(found.pop(number, [np.zeros(0, np.int64)])))
        expected = len(frames) if length is None else length
        if not len(frames) or not np.array_equal(frames, np.arange(expected)):
            data = files[0].parents[1] if files else "data"
            raise DatasetError(
                f"{data}: episode {number} has {len(frames)} rows, and its length in meta is {length}; expected one "
                f"row per frame, numbered from 0 in frame_index: the dataset is incomplete, download it again"
            )
        lengths[number] = expected
    if found:
        raise DatasetError(f"{files[0].parents[1]}: episode {min(found)} is not in the episode list of meta")
    return lengths


def integers(table: Any, name: str, path: Path) -> Int64Array:
    """A column of whole numbers.

    Raises:
        DatasetError: it has other values, or none.
    """
    column = table[name]
    try:
        if column.null_count:
            raise ValueError
        return np.asarray(column.to_numpy()).astype(np.int64, casting="same_kind")
    except (ValueError, TypeError) as exc:
        raise DatasetError(f"{path}: {name} has rows that are not whole numbers; expected one per row") from exc


@contextmanager
def parquet_errors(path: Path) -> Iterator[None]:
    """Map errors of reading a parquet file to a DatasetError."""
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as exc:
        reason = os_reason(exc, otherwise="it is damaged, cut off, or not a parquet file")
        raise DatasetError(f"{path} cannot be read: {reason}; copy it again") from exc


def _batches(file: Any, path: Path) -> Iterator[Any]:
    """Tables of some thousand rows; one empty table for a file without rows."""
    import pyarrow

    meta = file.metadata
    num_bytes = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
    rows = max(1, min(_MAX_ROWS, int(_BATCH_BYTES * meta.num_rows / max(1, num_bytes))))
    if not meta.num_rows:
        yield file.schema_arrow.empty_table()
        return
    iterator = file.iter_batches(batch_size=rows)
    while True:
        with parquet_errors(path):
            batch = next(iterator, None)
        if batch is None:
            return
        yield pyarrow.Table.from_batches([batch], schema=file.schema_arrow)


def _compression(file: Any) -> str:
    meta = file.metadata
    has_columns = meta.num_row_groups and meta.num_columns
    name = meta.row_group(0).column(0).compression.lower() if has_columns else "snappy"
    return "none" if name == "uncompressed" else name


def _points_column(xy: NDArray[Any]) -> Any:
    """(R, N, 2) as R lists of N lists of 2, the storage of Array2D.

    Without the metadata by which the package `datasets` recognises Array2D: with it, LeRobot 0.4 to 0.6 cannot merge
    datasets or convert v2.1 to v3; its loader needs only the types in meta/info.json.
    """
    import pyarrow

    rows, points, _ = xy.shape
    inner = pyarrow.ListArray.from_arrays(np.arange(rows * points + 1, dtype=np.int32) * 2, xy.reshape(-1))
    return pyarrow.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * points, inner)


def _flat_column(values: NDArray[Any]) -> Any:
    """(R, N) as R lists of fixed size; LeRobot expects plain values for N = 1."""
    import pyarrow

    flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.shape[1] == 1 else pyarrow.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _with_types(
    metadata: Mapping[bytes, bytes], stale: Callable[[str], bool], hub_types: Mapping[str, Any]
) -> dict[bytes, bytes]:
    """The metadata of a file, with the types of its new columns where the package `datasets` has recorded types."""
    try:
        recorded = json.loads(metadata[_HUB])
        types = recorded["info"]["features"]
        recorded["info"]["features"] = {name: each for name, each in types.items() if not stale(name)} | dict(hub_types)
    except (KeyError, ValueError, TypeError, AttributeError):  # not recorded
        return dict(metadata)
    return dict(metadata) | {_HUB: json.dumps(recorded).encode()}
