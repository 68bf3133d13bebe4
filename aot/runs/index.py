"""A run's results as one table: clips are selected by their properties without opening thousands of files."""

from __future__ import annotations

import csv
import json
import logging
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from aot.errors import ConfigError, ResultError, WriteError
from aot.paths import RunPaths
from aot.runs.file_states import results_below
from aot.runs.folders import is_run, not_a_run
from aot.runs.ledger import last_done
from aot.runs.timing import result_seconds
from aot.self_checks import CHECKS, worst
from aot.system.files import replacing
from aot.system.nearest import suggestion
from aot.system.text_files import about_file, read_text
from aot.types import BoolArray, ClipResult
from aot.writing.reader import load, read_overview

if TYPE_CHECKING:
    import pandas

    from aot.runs.torch_dataset import ClipDataset

_log = logging.getLogger("aot.runs.index")

# Columns of the index by type; unknown numbers are NaN.
_TEXTS = ("clip_id", "object_names")
_COUNTS = (
    "num_objects num_failed_objects num_points num_frames num_source_frames frame_interval width height "
    "peak_memory_bytes mtime_ns size_bytes"
).split()
_NUMBERS = ("fps", "seconds", *CHECKS)
_SCORES = ("J", "F", "AJ", "OA", "PCK")
_ATTRIBUTES = (
    "num_source_frames",
    "frame_interval",
    "width",
    "height",
    "peak_memory_bytes",
    "fps",
    "seconds",
    "checks",
)
_VERSION = "aot-index/1"


class RunResults:
    """The finished clips of a run, or a selection of them; iterating loads one clip after another.

    Args:
        root: the run folder.
        columns: name → one value per clip: clip_id, object_names (joined by ";"), num_objects, num_failed_objects,
            num_points, num_frames, num_source_frames, frame_interval, width, height, fps, seconds, peak_memory_bytes;
            visible, in_mask, mask_stability, return_error_px of the clip's worst object (aot.self_checks); J, F, AJ,
            OA, PCK from the run's summary.csv. NaN: unknown.
    """

    def __init__(self, root: Path, columns: Mapping[str, NDArray[Any]]) -> None:
        self.root = root
        self.columns = dict(columns)

    @property
    def clip_ids(self) -> list[str]:
        return [str(clip_id) for clip_id in self.columns["clip_id"]]

    def __len__(self) -> int:
        return len(self.columns["clip_id"])

    def __iter__(self) -> Iterator[ClipResult]:
        return (self.load(clip_id) for clip_id in self.clip_ids)

    def __repr__(self) -> str:
        return f"RunResults({str(self.root)!r}, {len(self)} clips)"

    def __getitem__(self, key: str) -> Any:
        """One column of the table by its name: (number of clips,); or the result of one clip by its id.

        A clip that has the name of a column is loaded by `load`.

        Raises:
            KeyError: neither a column nor a clip.
            ResultError: the clip's file cannot be read.
        """
        if key in self.columns:
            return self.columns[key]
        if key in self.clip_ids:
            return self.load(key)
        raise KeyError(f"no column or clip {key!r}; {suggestion(key, [*self.columns, *self.clip_ids])}")

    def where(self, chosen: BoolArray) -> RunResults:
        """Some of the clips: `run.where(run["visible"] < 0.5)`.

        Args:
            chosen: (number of clips,) bool; True selects the clip.
        """
        if chosen.shape != (len(self),) or chosen.dtype != np.bool_:
            raise ValueError(f"where: got {chosen.shape} {chosen.dtype}, expected ({len(self)},) bool, one per clip")
        return RunResults(self.root, {name: values[chosen] for name, values in self.columns.items()})

    def load(self, clip_id: str, *, masks: bool | Literal["lazy"] = "lazy") -> ClipResult:
        """Load the result of one clip.

        Args:
            clip_id: of the clip.
            masks: as for `aot.load`; by default, masks are read on access.
        Raises:
            ResultError: the file does not exist, or is incomplete.
        """
        return load(RunPaths(self.root).clip(clip_id).result, masks=masks)

    def to_pandas(self) -> pandas.DataFrame:
        """The table, with one row per clip.

        Raises:
            ConfigError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as exc:
            raise ConfigError("to_pandas needs pandas: pip install 'auto-objects-tracker[pandas]'") from exc
        return pandas.DataFrame(self.columns)

    def as_dataset(self, transform: Callable[[ClipResult], Any] | None = None) -> ClipDataset:
        """A `torch.utils.data.Dataset` with one item per clip.

        Args:
            transform: result → item; None: a dictionary of tensors (`ClipResult.to_torch`).
        """
        from aot.runs.torch_dataset import ClipDataset

        paths = RunPaths(self.root)
        return ClipDataset([paths.clip(clip_id).result for clip_id in self.clip_ids], transform)


def open_run(root: str | Path) -> RunResults:
    """Open a run folder.

    The table is cached in `index.npz` in the run folder. Results that are new or have changed since it was written are
    read from the ledgers, or, where these have no record of the file, from the file, in about a millisecond.

    Args:
        root: the run folder.
    Raises:
        ConfigError: not a run folder.
    """
    paths = RunPaths(Path(root))
    if not is_run(paths.root):
        raise not_a_run(paths.root)
    columns = update_index(paths)
    return RunResults(paths.root, _visible(columns) | _scores(paths.summary, columns["clip_id"]))


def update_index(paths: RunPaths) -> dict[str, NDArray[Any]]:
    """Read the results that are new or have changed since the index was written, and write it again.

    Returns:
        The columns of the table of all results, sorted by clip id.
    """
    present = {clip_id: (mtime_ns, size) for clip_id, (size, mtime_ns) in results_below(paths).items()}
    known = _read_index(paths.index)
    changed = {
        clip_id
        for clip_id, state in present.items()
        if clip_id not in known or (known[clip_id]["mtime_ns"], known[clip_id]["size_bytes"]) != state
    }
    rows: list[dict[str, Any]] = []
    num_read = len(changed)
    recorded = _recorded(paths, changed)
    for clip_id, (mtime_ns, size) in sorted(present.items()):
        row = known.get(clip_id)
        if clip_id in changed:
            row = _row_of_record(recorded.get(clip_id), clip_id, mtime_ns, size)
            row = row or _read_row(paths, clip_id, mtime_ns, size)
        if row is not None:
            rows.append(row)
    columns = _as_columns(rows)
    if num_read or len(known) != len(rows):
        _write_index(paths.index, columns)
    return columns


def _recorded(paths: RunPaths, clip_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """The latest records of the results of some clips."""
    if not clip_ids:
        return {}
    done = last_done(paths, "file_bytes", "summary")
    return {clip_id: done[clip_id] for clip_id in clip_ids if clip_id in done}


def _row_of_record(done: dict[str, Any] | None, clip_id: str, mtime_ns: int, size: int) -> dict[str, Any] | None:
    """The row of a clip from the record of its result, so that its file need not be opened.

    Returns:
        None if there is no record of a file of this size, or if it lacks what version 0.1 did not record.
    """
    if done is None or done["file_bytes"] != size or not (done["summary"] or {}).get("width"):
        return None
    summary = done["summary"]
    return {
        **{name: summary[name] for name in _COUNTS if name in summary},
        "num_failed_objects": len(summary["object_errors"]),
        **{name: worst(summary["checks"], name) for name in CHECKS},
        "clip_id": clip_id,
        "object_names": ";".join(summary["object_names"]),
        "fps": float(summary["fps"]),
        "seconds": result_seconds(summary["seconds"]),
        "mtime_ns": mtime_ns,
        "size_bytes": size,
    }


def _read_row(paths: RunPaths, clip_id: str, mtime_ns: int, size: int) -> dict[str, Any] | None:
    """The row of a clip; None, with a logged warning, if its file cannot be read."""
    try:
        overview = read_overview(paths.clip(clip_id).result, _ATTRIBUTES)
    except ResultError as error:
        _log.warning("skipped: %s", str(error))
        return None
    checks = json.loads(overview.get("checks", "{}"))
    numbers = {name: worst(checks, name) for name in CHECKS}
    spent = json.loads(overview.get("seconds") or "{}")
    return {
        **{name: int(overview[name]) for name in _COUNTS if name in overview},
        **numbers,
        "clip_id": clip_id,
        "object_names": ";".join(overview["object_names"]),
        "fps": float(overview["fps"]),
        "seconds": result_seconds(spent),
        "mtime_ns": mtime_ns,
        "size_bytes": size,
    }


def _as_columns(rows: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    types: dict[str, Any] = dict.fromkeys(_TEXTS, np.str_) | dict.fromkeys(_COUNTS, np.int64)
    types |= dict.fromkeys(_NUMBERS, np.float64)
    return {name: np.array([row[name] for row in rows], dtype=dtype) for name, dtype in types.items()}


def _visible(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: values for name, values in columns.items() if name not in ("mtime_ns", "size_bytes")}


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    """Clip id → row; empty if there is no index of this version."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["version"]) != _VERSION:
                return {}
            columns = {name: arrays[name].tolist() for name in (*_TEXTS, *_COUNTS, *_NUMBERS)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    names = list(columns)
    return {row[0]: dict(zip(names, row)) for row in zip(*columns.values())}


def _write_index(path: Path, columns: Mapping[str, NDArray[Any]]) -> None:
    try:
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, version=np.array(_VERSION), **columns)
    except WriteError as error:
        # The run of another user may be read-only: its files are then opened again by every call.
        _log.warning("%s", str(error))


def _scores(summary: Path, clip_ids: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """The scores in the run's summary.csv; NaN if a clip has none, or the file does not exist."""
    by_clip: dict[str, dict[str, str]] = {}
    try:
        if summary.is_file():
            by_clip = {row["clip_id"]: row for row in csv.DictReader(read_text(summary).splitlines())}
        return {
            name: np.array([float(by_clip.get(str(i), {}).get(name) or "nan") for i in clip_ids], dtype=np.float64)
            for name in _SCORES
        }
    except (KeyError, ValueError, csv.Error) as exc:
        raise ConfigError(
            f"{about_file(summary, exc)}; expected the table that aot.run writes: delete it, and the next run of the "
            f"same command writes it again"
        ) from exc
