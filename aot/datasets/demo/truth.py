"""Ground truth of a demo clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.datasets.ground_truth import GroundTruth, TrackTruth, read_npz, unknown_tracks
from aot.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array, QueryPoints


class SceneTruth(GroundTruth):
    """Exact ground truth of a rendered clip: known affine matrices move each object, so any point on it can be tracked.

    Args:
        path: npz with masks_packed (bits of (T, K, H, W) bool), masks_shape (4,), object_id (K,) int32 and
            motion (T, K, 2, 3) float64, which maps (x, y, 1) of the object's own image to px of the frame. An object
            with several faces is several times among the K, each with the mask and the motion of one face.
    Raises:
        DatasetError: the file cannot be read, or an array is missing.
    """

    def __init__(self, path: Path) -> None:
        arrays = read_npz(path, ("masks_packed", "masks_shape", "object_id", "motion"))
        shape = tuple(int(size) for size in arrays["masks_shape"])
        bits = np.unpackbits(arrays["masks_packed"], count=int(np.prod(shape)))
        self._masks: BoolArray = bits.view(np.bool_).reshape(shape)
        self._object_id: Int32Array = arrays["object_id"]
        self._motion: Float64Array = arrays["motion"]

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(sorted(set(self._object_id.tolist())))

    @property
    def mask_frames(self) -> Int64Array:
        return np.arange(len(self._masks), dtype=np.int64)

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        if not 0 <= frame < len(self._masks):
            return None
        return {i: self._masks[frame, self._object_id == i].any(axis=0) for i in self.object_ids}

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth:
        truth = unknown_tracks(len(frames), len(queries))
        rows = np.flatnonzero((frames >= 0) & (frames < len(self._masks)))
        for number, (query, object_id) in enumerate(zip(queries.txy, queries.object_id)):
            own = np.array([query[0]], dtype=np.int64)
            # A query outside its object moves with something else, whose motion is not stored.
            for face in np.flatnonzero(self._object_id == object_id).tolist():
                if self._is_visible(own, face, query[None, 1:])[0]:
                    xy = self._positions(query, face, frames[rows])
                    truth.xy[rows, number] = xy
                    truth.visible[rows, number] = self._is_visible(frames[rows], face, xy)
                    truth.annotated[rows, number] = True
        return truth

    def flow(self, object_id: int, frame: int, to_frame: int, xy: Float32Array) -> Float32Array | None:
        found = np.full(xy.shape, np.nan, dtype=np.float32)
        for face in np.flatnonzero(self._object_id == object_id).tolist():
            own = self._is_visible(np.full(len(xy), frame, dtype=np.int64), face, xy)
            start, end = self._motion[frame, face], self._motion[to_frame, face]
            in_object = np.linalg.solve(start[:, :2], (xy[own] - start[:, 2]).T)
            found[own] = (end[:, :2] @ in_object).T + end[:, 2] - xy[own]
        return found

    def _positions(self, query: Float32Array, row: int, frames: Int64Array) -> Float64Array:
        """(T, 2) px: positions of the point of the object that lies under the query."""
        start = self._motion[int(query[0]), row]
        in_object = np.linalg.solve(start[:, :2], query[1:] - start[:, 2])
        motion = self._motion[frames, row]
        positions: Float64Array = motion[:, :, :2] @ in_object + motion[:, :, 2]
        return positions

    def _is_visible(self, frames: Int64Array, row: int, xy: Float64Array | Float32Array) -> BoolArray:
        """(T,) whether each position (T, 2) is inside the frame and on the visible part of the object."""
        num_frames, _, height, width = self._masks.shape
        x, y = np.round(xy).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (frames >= 0) & (frames < num_frames)
        visible = np.zeros(len(frames), dtype=np.bool_)
        columns, lines = x[inside].astype(np.int64), y[inside].astype(np.int64)
        visible[inside] = self._masks[frames[inside], row, lines, columns]
        return visible
