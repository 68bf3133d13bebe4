"""Use the result of another run as ground truth, to compare runs over clips that have no annotations."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.datasets.ground_truth import GroundTruth, TrackTruth
from aot.types import BoolArray, Int64Array, QueryPoints
from aot.writing.reader import MaskReader, load

# Query points of two runs are considered the same if t, x and y differ by no more than this.
_MATCH_PX = 0.01


class ResultTruth(GroundTruth):
    """A clip's result as ground truth, on the frames that its run kept.

    Args:
        path: `clips/<clip_id>.h5` of the other run.
    Raises:
        ResultError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._result = load(path, masks=False)

    @property
    def object_ids(self) -> tuple[int, ...]:
        return tuple(self._result.object_id.tolist())

    @property
    def mask_frames(self) -> Int64Array:
        return self._result.index[self._result.mask_row]

    def mask(self, frame: int) -> dict[int, BoolArray] | None:
        row = int(np.searchsorted(self._result.index, frame))
        if row == len(self._result.index) or self._result.index[row] != frame:
            return None
        with MaskReader(self._path) as reader:
            masks = reader.row(row)
        return None if masks is None else dict(zip(self.object_ids, masks))

    def tracks(self, queries: QueryPoints, frames: Int64Array) -> TrackTruth:
        own = self._result
        shape = (len(frames), len(queries))
        truth = TrackTruth(
            xy=np.full((*shape, 2), np.nan, dtype=np.float32),
            visible=np.zeros(shape, dtype=np.bool_),
            annotated=np.zeros(shape, dtype=np.bool_),
        )
        kept = np.flatnonzero(np.isin(frames, own.index))
        rows = np.searchsorted(own.index, frames[kept])
        for number, (query, object_id) in enumerate(zip(queries.txy, queries.object_id)):
            same = (own.track_object_id == object_id) & (np.abs(own.query - query).max(axis=1, initial=0) <= _MATCH_PX)
            if same.any():
                point = int(same.argmax())
                truth.xy[kept, number] = own.tracks.xy[rows, point]
                truth.visible[kept, number] = own.tracks.visible[rows, point]
                truth.annotated[kept, number] = True
        return truth
