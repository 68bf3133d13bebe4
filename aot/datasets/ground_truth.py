"""Ground truth of a clip: the interface of annotated masks and tracks that results are scored against.

Masks are annotated on some frames, tracks for some points. What is not annotated is reported as such, never guessed.
"""

from __future__ import annotations

import zipfile
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aot.errors import DatasetError
from aot.system.array_fields import ArrayFields
from aot.system.os_errors import os_reason
from aot.types import BoolArray, Float32Array, Int64Array, QueryPoints

FOREGROUND = 0
"""Object id of annotations that separate objects from the background, but not from each other (DAVIS 2016)."""


@dataclass(frozen=True, eq=False, repr=False)
class TrackTruth(ArrayFields):
    """True positions of N query points on T requested frames; row t belongs to the t-th requested frame."""

    xy: Float32Array
    """(T, N, 2) float32 px; NaN where no position is annotated."""
    visible: BoolArray
    """(T, N) bool: the point is visible; False where it is not annotated."""
    annotated: BoolArray
    """(T, N) bool: the point is annotated on this frame; where it is not, the other fields have no meaning."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("xy", np.float32, ("T", "N", 2), sizes)
        self._check("visible", np.bool_, ("T", "N"), sizes)
        self._check("annotated", np.bool_, ("T", "N"), sizes)


QueryMode = Literal["first", "strided"]
"""Frames on which a track is scored (TAP-Vid): `first`: those after its query; `strided`: all but the query frame."""


class GroundTruth(ABC):
    """Ground truth of one clip. `frame` is always a source frame number."""

    query_mode: QueryMode = "strided"
    """How the benchmark that the annotations belong to scores tracks."""

    @property
    @abstractmethod
    def object_ids(self) -> tuple[int, ...]:
        """Ascending ids of all objects with annotated masks; (FOREGROUND,) if objects are not separated."""

    @property
    @abstractmethod
    def mask_frames(self) -> Int64Array:
        """(F,) int64, ascending: frames on which at least one object is annotated; found without reading masks."""

    @abstractmethod
    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        """Masks of the objects that are annotated on a frame.

        Returns:
            Object id → (H, W) bool, the visible part of the object; all False for an object that is out of sight.
            None: the frame is not annotated.
        Raises:
            DatasetError: an annotation cannot be read.
        """

    @abstractmethod
    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        """True tracks of query points.

        Args:
            queries: N points; a point without annotation is not annotated on any frame of the result.
            frames: (T,) int64 source frames.
        Returns:
            T rows and N columns; None: no track of this clip is annotated.
        """

    def flow(self, object_id: int, frame: int, to_frame: int, xy: Float32Array) -> Float32Array | None:
        """True motion of the object's surface under some positions from one frame to another.

        Args:
            object_id: of the object.
            frame, to_frame: source frames.
            xy: (P, 2) px on `frame`.
        Returns:
            (P, 2) px, NaN where the position is not on the visible part of the object; None: flow is not known.
        """
        return None


def unknown_tracks(num_frames: int, num_points: int) -> TrackTruth:
    """Tracks (T, N) of which nothing is annotated; to be filled."""
    return TrackTruth(
        xy=np.full((num_frames, num_points, 2), np.nan, dtype=np.float32),
        visible=np.zeros((num_frames, num_points), dtype=np.bool_),
        annotated=np.zeros((num_frames, num_points), dtype=np.bool_),
    )


def read_npz(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays of an npz file; pickled objects are refused.

    Args:
        path: the file.
        names: arrays that must be in it.
        optional: arrays that are read if they are in it.
    Raises:
        DatasetError: the file cannot be read, or an array is missing.
    """
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in (*names, *optional) if name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        reason = os_reason(exc, otherwise="it is damaged, cut off, or not an npz of plain arrays")
        raise DatasetError(
            f"cannot read the ground truth {path}: {reason}; expected an npz with {', '.join(names)}"
        ) from exc
    if missing:
        raise DatasetError(f"{path}: {', '.join(missing)} missing; expected an npz with {', '.join(names)}")
    return arrays
