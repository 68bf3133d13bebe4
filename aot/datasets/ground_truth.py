"""What is known to be true about a clip: masks and tracks to measure results against.

Masks are known on some frames, tracks for some points; where nothing is known the answer says so, and never guesses.
"""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aot.errors import DatasetError
from aot.images.masks import read_indices
from aot.system.array_fields import ArrayFields
from aot.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, QueryPoints, UInt8Array

FOREGROUND = 0
"""The object id of annotation that tells objects from background, but not one object from another (DAVIS-2016)."""
_VOID = 255
_MATCH_PX = 0.01


@dataclass(frozen=True, eq=False, repr=False)
class TrackTruth(ArrayFields):
    """Where each query point truly is; row t belongs to the t-th frame that was asked for."""

    xy: Float32Array
    """(T, N, 2) px; NaN where the truth gives no position."""
    visible: BoolArray
    """(T, N) the point is seen; False where not annotated."""
    annotated: BoolArray
    """(T, N) the truth is known; nothing else here means anything where it is not."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("xy", np.float32, ("T", "N", 2), sizes)
        self._check("visible", np.bool_, ("T", "N"), sizes)
        self._check("annotated", np.bool_, ("T", "N"), sizes)


QueryMode = Literal["first", "strided"]
"""On which frames a track counts: on those after its query, or on all but its query's own (TAP-Vid's two modes)."""


class GroundTruth(ABC):
    """The truth about one clip. `frame` is always a source frame number."""

    query_mode: QueryMode = "strided"
    """How the benchmark that the truth comes from scores tracks."""

    @property
    @abstractmethod
    def object_ids(self) -> tuple[int, ...]:
        """Ascending ids of all objects that `mask` speaks of; (FOREGROUND,) where objects are not told apart."""

    @property
    @abstractmethod
    def mask_frames(self) -> Int64Array:
        """(F,) ascending frames on which `mask` knows at least one object; told without reading masks."""

    @abstractmethod
    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        """Visible part of every object that is annotated on this frame, (H, W); all False for one out of sight.

        Returns:
            None: this frame is not annotated.
        """

    @abstractmethod
    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        """The true course of these query points.

        Args:
            queries: N points; one that the truth does not know is annotated nowhere.
            frames: (T,) source frames.
        Returns:
            None: nothing is known about any track of this clip.
        """


class SceneTruth(GroundTruth):
    """Exact truth of a rendered clip: each object is moved by known affine matrices, so any point on it is known.

    Args:
        path: npz with masks_packed (bits of (T, K, H, W) bool), masks_shape (4,), object_id (K,) and
            motion (T, K, 2, 3) float64 from object coordinates to px.
    """

    def __init__(self, path: Path) -> None:
        arrays = _load_arrays(path, ("masks_packed", "masks_shape", "object_id", "motion"))
        shape = tuple(int(size) for size in arrays["masks_shape"])
        bits = np.unpackbits(arrays["masks_packed"], count=int(np.prod(shape)))
        self._masks: BoolArray = bits.view(np.bool_).reshape(shape)
        self._object_id: Int32Array = arrays["object_id"]
        self._motion: Float64Array = arrays["motion"]

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._object_id.tolist()))

    @property
    def mask_frames(self) -> Int64Array:
        return np.arange(len(self._masks), dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        if not 0 <= frame < len(self._masks):
            return None
        return dict(zip(self._object_id.tolist(), self._masks[frame]))

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth:
        truth = _unknown(len(frames), len(queries))
        rows = np.flatnonzero((frames >= 0) & (frames < len(self._masks)))
        for number, (query, object_id) in enumerate(zip(queries.txy, queries.object_id)):
            row = np.flatnonzero(self._object_id == object_id)
            # A query beside its object moves with something else, of which nothing is known.
            if len(row) and self._is_seen(np.array([query[0]], dtype=np.int64), row[0], query[None, 1:])[0]:
                xy = self._follow(query, row[0], frames[rows])
                truth.xy[rows, number] = xy
                truth.visible[rows, number] = self._is_seen(frames[rows], row[0], xy)
                truth.annotated[rows, number] = True
        return truth

    def _follow(self, query: Float32Array, row: int, frames: Int64Array) -> Float64Array:
        """(T, 2) positions of the point of the object that the query marks."""
        start = self._motion[int(query[0]), row]
        own = np.linalg.solve(start[:, :2], query[1:] - start[:, 2])
        motion = self._motion[frames, row]
        positions: Float64Array = motion[:, :, :2] @ own + motion[:, :, 2]
        return positions

    def _is_seen(self, frames: Int64Array, row: int, xy: Float64Array | Float32Array) -> BoolArray:
        """(T,) whether each position lies in the frame and on the visible part of the object."""
        num_frames, _, height, width = self._masks.shape
        x, y = np.round(xy).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (frames >= 0) & (frames < num_frames)
        seen = np.zeros(len(frames), dtype=np.bool_)
        columns, lines = x[inside].astype(np.int64), y[inside].astype(np.int64)
        seen[inside] = self._masks[frames[inside], row, lines, columns]
        return seen


class AnnotatedTruth(GroundTruth):
    """Truth that people wrote down: masks on some frames, the course of some points, or both.

    Args:
        masks_folder: `00000.png`, `00005.png`, …: one picture an annotated frame, read by palette index. If no picture
            holds anything but 0 and 255 it is binary: 255 is the FOREGROUND; otherwise each value is an object id, and
            255 is void (belongs to no object).
        tracks_file: npz with points_xy (N, T, 2) float32, visible (N, T) bool and, if truth is known on some frames
            only, annotated (T,) bool; with a leading object axis, (O, N, T, …), object o has the id o + 1.
        frame_of: source frame of a picture's name without suffix; None: the name is the number.
        late_objects: objects join on later frames too; nothing is known of one before it is first seen.
        merge_objects: all that is not 0 is the FOREGROUND, whatever the values.
        query_mode: how tracks are scored.
    """

    def __init__(
        self,
        masks_folder: Path | None = None,
        tracks_file: Path | None = None,
        frame_of: Mapping[str, int] | None = None,
        late_objects: bool = False,
        merge_objects: bool = False,
        query_mode: QueryMode = "strided",
    ) -> None:
        self.query_mode = query_mode
        self._pictures = {} if masks_folder is None else numbered_pictures(masks_folder, frame_of)
        self._points = None if tracks_file is None else _AnnotatedPoints(tracks_file)
        self._late_objects = late_objects
        self._merge_objects = merge_objects

    @cached_property
    def _first_seen(self) -> dict[int, int]:
        """The frame that first shows each value; all pictures are read, an object may come into sight on any."""
        first: dict[int, int] = {}
        for frame, path in self._pictures.items():
            for value in np.unique(_read_indices(path)).tolist():
                first.setdefault(value, frame)
        return first

    @cached_property
    def _is_binary(self) -> bool:
        return self._merge_objects or (set(self._first_seen) <= {0, _VOID} and _VOID in self._first_seen)

    @property
    def is_prompts_only(self) -> bool:
        """Whether every picture shows a new object, as where the truth is hidden and only prompts are given out."""
        return len({frame for value, frame in self._first_seen.items() if value}) == len(self._pictures)

    @property
    def object_ids(self) -> tuple[int, ...]:
        return (FOREGROUND,) if self._is_binary else tuple(sorted(set(self._first_seen) - {0, _VOID}))

    @property
    def mask_frames(self) -> Int64Array:
        return np.array(list(self._pictures), dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        if frame not in self._pictures:
            return None
        indices = _read_indices(self._pictures[frame])
        if self._is_binary:
            return {FOREGROUND: indices != 0}
        known = [i for i in self.object_ids if not self._late_objects or self._first_seen[i] <= frame]
        return {object_id: indices == object_id for object_id in known}

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        return None if self._points is None else self._points.tracks(queries, frames)


class ApartTruth(GroundTruth):
    """Several objects, each annotated apart from the others; they may overlap.

    Args:
        truths: object id → the truth of this object alone.
    """

    def __init__(self, truths: Mapping[int, AnnotatedTruth]) -> None:
        self._truths = truths

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._truths))

    @property
    def mask_frames(self) -> Int64Array:
        return np.unique(np.concatenate([truth.mask_frames for truth in self._truths.values()]))

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        found = {object_id: truth.mask(frame) for object_id, truth in self._truths.items()}
        return {object_id: masks[FOREGROUND] for object_id, masks in found.items() if masks is not None} or None

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        return None


class _AnnotatedPoints:
    """The points of one npz; P counts all points of all objects."""

    def __init__(self, path: Path) -> None:
        arrays = _load_arrays(path, ("points_xy", "visible"), optional=("annotated",))
        xy, visible = arrays["points_xy"], arrays["visible"]
        if xy.ndim not in (3, 4) or xy.shape[-1] != 2 or visible.shape != xy.shape[:-1]:
            raise DatasetError(
                f"{path}: got points_xy {xy.shape} and visible {visible.shape}, "
                f"expected (N, T, 2) and (N, T), or (O, N, T, 2) and (O, N, T) with an object axis"
            )
        num_frames = xy.shape[-2]
        annotated = arrays.get("annotated", np.ones(num_frames, dtype=np.bool_))
        if annotated.shape != (num_frames,):
            raise DatasetError(f"{path}: got annotated {annotated.shape}, expected ({num_frames},), one a frame")
        self._xy: Float32Array = xy.reshape(-1, num_frames, 2).astype(np.float32)
        self._visible: BoolArray = visible.reshape(-1, num_frames).astype(np.bool_)
        # A point that is said to be seen, but not where, is not annotated.
        self._known: BoolArray = annotated.astype(np.bool_) & ~(self._visible & np.isnan(self._xy).any(axis=2))
        # 0: belongs to any object.
        self._object_id = np.repeat(np.arange(1, len(xy) + 1), xy.shape[1]) if xy.ndim == 4 else np.zeros(len(xy))

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth:
        truth = _unknown(len(frames), len(queries))
        num_frames = self._xy.shape[1]
        rows = np.flatnonzero((frames >= 0) & (frames < num_frames))
        for number, (query, object_id) in enumerate(zip(queries.txy, queries.object_id)):
            point = self._match(query, int(object_id))
            if point is not None:
                truth.xy[rows, number] = self._xy[point, frames[rows]]
                truth.annotated[rows, number] = self._known[point, frames[rows]]
                truth.visible[rows, number] = self._visible[point, frames[rows]] & truth.annotated[rows, number]
        return truth

    def _match(self, query: Float32Array, object_id: int) -> int | None:
        """The point whose position on the query's frame is the query."""
        frame = int(query[0])
        if not 0 <= frame < self._xy.shape[1] or not len(self._xy):
            return None
        distance = np.linalg.norm(self._xy[:, frame] - query[1:], axis=1)
        distance[~self._known[:, frame] | ~np.isin(self._object_id, (0, object_id))] = np.nan
        near = np.where(np.isnan(distance), np.inf, distance)
        best = int(near.argmin())
        return best if near[best] <= _MATCH_PX else None


def _unknown(num_frames: int, num_points: int) -> TrackTruth:
    return TrackTruth(
        xy=np.full((num_frames, num_points, 2), np.nan, dtype=np.float32),
        visible=np.zeros((num_frames, num_points), dtype=np.bool_),
        annotated=np.zeros((num_frames, num_points), dtype=np.bool_),
    )


def _load_arrays(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
            missing = [name for name in names if name not in archive]
            arrays = {name: archive[name] for name in (*names, *optional) if name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise DatasetError(
            f"cannot read the ground truth {path}: {exc}; expected an npz with {', '.join(names)}"
        ) from exc
    if missing:
        raise DatasetError(f"{path}: no {', '.join(missing)} in it, expected an npz with {', '.join(names)}")
    return arrays


def numbered_pictures(folder: Path, frame_of: Mapping[str, int] | None = None) -> dict[int, Path]:
    """Source frame → annotated picture, ascending.

    Args:
        folder: PNGs, one an annotated frame.
        frame_of: source frame of a picture's name without suffix; None: the name is the number.
    Raises:
        DatasetError: there is none, or a picture's name belongs to no frame.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of annotated masks (00000.png, …)")
    paths = sorted(folder.glob("*.png"))
    strange = [p.name for p in paths if (not p.stem.isdecimal() if frame_of is None else p.stem not in frame_of)]
    if strange or not paths:
        found = ", ".join(strange[:3]) or "no PNG"
        like = "by their source frame, such as 00000.png"
        if frame_of is not None:
            like = f"like the clip's frames, from {min(frame_of)}.png to {max(frame_of)}.png"
        raise DatasetError(f"{folder}: found {found}, expected pictures named {like}")
    numbered = {int(path.stem) if frame_of is None else frame_of[path.stem]: path for path in paths}
    return dict(sorted(numbered.items()))


def _read_indices(path: Path) -> UInt8Array:
    try:
        return read_indices(path)
    except ValueError as exc:
        raise DatasetError(f"annotated mask {exc}") from exc
