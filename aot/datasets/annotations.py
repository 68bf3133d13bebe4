"""Ground truth from annotation files: PNGs with object indices as pixel values, and npz files of point tracks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from aot.datasets.ground_truth import FOREGROUND, GroundTruth, QueryMode, TrackTruth, read_npz, unknown_tracks
from aot.errors import DatasetError
from aot.images.mask_images import VOID, MaskImage, read_mask_image
from aot.system.listing import composed, visible_entries
from aot.types import BoolArray, Float32Array, Int64Array, QueryPoints

_MAX_MATCH_DISTANCE_PX = 0.01
_NUMBERS = "biuf"  # kinds of NumPy dtypes
"""A query point is an annotated point if it is this close to it on the query's frame."""


class AnnotatedTruth(GroundTruth):
    """Ground truth from files: masks on some frames, tracks of some points, or both.

    Args:
        masks_folder: `00000.png`, `00005.png`, …: one image per annotated frame; pixel values are palette indices. If
            all images contain only 0 and 255, they are binary and 255 is the FOREGROUND; otherwise each value is an
            object id, and 255 is void (belongs to no object). None: there are no masks.
        tracks_file: npz with points_xy (N, T, 2) float32 px, visible (N, T) bool and, if only some frames are
            annotated, annotated (T,) bool; with a leading object axis, (O, N, T, …), object o has the id o + 1.
            None: there are no tracks.
        frame_of: image name without suffix → source frame; None: the name is the frame number.
        late_objects: objects may appear on later frames, and are not annotated before the first mask that shows them.
        merge_objects: all values other than 0 are the FOREGROUND.
        query_mode: how tracks are scored.
    Raises:
        DatasetError: the folder or the file does not exist or has another layout.
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
        self._files = {} if masks_folder is None else mask_files(masks_folder, frame_of)
        self._points = None if tracks_file is None else _AnnotatedPoints(tracks_file)
        self._late_objects = late_objects
        self._merge_objects = merge_objects

    @cached_property
    def _first_seen(self) -> dict[int, int]:
        """Pixel value → first frame that shows it; reads all images, because an object may appear on any of them."""
        first: dict[int, int] = {}
        for frame, path in self._files.items():
            for value in np.unique(read_mask(path).values).tolist():
                first.setdefault(value, frame)
        return first

    @cached_property
    def _is_binary(self) -> bool:
        return self._merge_objects or (set(self._first_seen) <= {0, VOID} and VOID in self._first_seen)

    @property
    def is_prompts_only(self) -> bool:
        """Whether every image shows a new object, as in test sets that publish the prompts but not the annotations."""
        return len({frame for value, frame in self._first_seen.items() if value}) == len(self._files)

    @property
    def object_ids(self) -> tuple[int, ...]:
        return (FOREGROUND,) if self._is_binary else tuple(sorted(set(self._first_seen) - {0, VOID}))

    @property
    def mask_frames(self) -> Int64Array:
        return np.array(list(self._files), dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        if frame not in self._files:
            return None
        image = read_mask(self._files[frame])
        if self._is_binary:
            return {FOREGROUND: image.any_object()}
        known = [i for i in self.object_ids if not self._late_objects or self._first_seen[i] <= frame]
        return {object_id: image.values == object_id for object_id in known}

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth | None:
        return None if self._points is None else self._points.tracks(queries, frames)


class PerObjectTruth(GroundTruth):
    """Objects that are annotated in separate files; their masks may overlap.

    Args:
        truths: object id → ground truth of this object only, as FOREGROUND.
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
    """The points of one npz file, all objects in one axis of length P.

    Args:
        path: see `tracks_file` of AnnotatedTruth.
    """

    def __init__(self, path: Path) -> None:
        arrays = read_npz(path, ("points_xy", "visible"), optional=("annotated",))
        xy, visible = arrays["points_xy"], arrays["visible"]
        if xy.ndim not in (3, 4) or xy.shape[-1] != 2 or visible.shape != xy.shape[:-1]:
            raise DatasetError(
                f"{path}: got points_xy {xy.shape} and visible {visible.shape}, "
                f"expected (N, T, 2) and (N, T), or (O, N, T, 2) and (O, N, T) with an object axis"
            )
        if xy.dtype.kind not in _NUMBERS or visible.dtype.kind not in _NUMBERS:
            raise DatasetError(f"{path}: got points_xy of {xy.dtype} and visible of {visible.dtype}; expected numbers")
        num_frames = xy.shape[-2]
        annotated = arrays.get("annotated", np.ones(num_frames, dtype=np.bool_))
        if annotated.shape != (num_frames,):
            raise DatasetError(f"{path}: got annotated {annotated.shape}, expected ({num_frames},), one per frame")
        self._xy: Float32Array = xy.reshape(-1, num_frames, 2).astype(np.float32)
        self._visible: BoolArray = visible.reshape(-1, num_frames).astype(np.bool_)
        # A point that is visible but has no position is not annotated.
        self._known: BoolArray = annotated.astype(np.bool_) & ~(self._visible & np.isnan(self._xy).any(axis=2))
        # 0: matches queries of any object.
        self._object_id = np.repeat(np.arange(1, len(xy) + 1), xy.shape[1]) if xy.ndim == 4 else np.zeros(len(xy))

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth:
        truth = unknown_tracks(len(frames), len(queries))
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
        """Index of the annotated point at the query's position on the query's frame; None: there is none."""
        frame = int(query[0])
        if not 0 <= frame < self._xy.shape[1] or not len(self._xy):
            return None
        distance = np.linalg.norm(self._xy[:, frame] - query[1:], axis=1)
        distance[~self._known[:, frame] | ~np.isin(self._object_id, (0, object_id))] = np.nan
        distance = np.where(np.isnan(distance), np.inf, distance)
        best = int(distance.argmin())
        return best if distance[best] <= _MAX_MATCH_DISTANCE_PX else None


def mask_files(folder: Path, frame_of: Mapping[str, int] | None = None) -> dict[int, Path]:
    """Find the annotated masks of a clip.

    Args:
        folder: PNGs, one per annotated frame.
        frame_of: image name without suffix → source frame; None: the name is the frame number.
    Returns:
        Source frame → file, ascending.
    Raises:
        DatasetError: there is no PNG, or the name of one is not that of a frame.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder; expected the annotated masks of a clip, 00000.png, …")
    paths = [path for path in visible_entries(folder) if path.suffix.lower() == ".png"]
    unexpected = [
        p.name for p in paths if (not p.stem.isdecimal() if frame_of is None else composed(p.stem) not in frame_of)
    ]
    if unexpected or not paths:
        found = ", ".join(unexpected[:3]) or "no PNG"
        naming = "by their source frame, such as 00000.png"
        if frame_of is not None:
            naming = f"like the clip's frames, from {min(frame_of)}.png to {max(frame_of)}.png"
        raise DatasetError(f"{folder}: found {found}, expected PNGs named {naming}")
    numbered = {int(path.stem) if frame_of is None else frame_of[composed(path.stem)]: path for path in paths}
    return dict(sorted(numbered.items()))


def read_mask(path: Path) -> MaskImage:
    """Read an annotated mask.

    Raises:
        DatasetError: it is not an image, or not one with indices.
    """
    try:
        return read_mask_image(path)
    except ValueError as exc:
        raise DatasetError(f"annotated mask {exc}") from exc
