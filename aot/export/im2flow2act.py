"""Im2Flow2Act: one Zarr group per episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aot.export.base import ExportedClip
from aot.export.cotracker import clip_tracks
from aot.export.frames import frames_of
from aot.export.options import ExportOptions
from aot.export.zarr_format import write_group
from aot.runs.resampling import chosen_points
from aot.system.files import replacing_folder, write_text

_SIZE = (256, 256)
_NUM_BOX_POINTS = 32 * 32
_MIN_MOTION_PX = 15.0


class Im2Flow2ActExporter:
    """`<out>/episode_<i>/`: `rgb_arr`, `point_tracking_sequence`, `bbox_point_tracking_sequence`, `sam_mask`, …

    Sequences are (N, T, 3): x and y px of 256x256, and 1 where valid. `bbox_point_tracking_sequence` has 1024 of the
    points, those valid on the first frame, repeated if fewer are: they are not a grid in a box. `sam_mask` (256, 256)
    has the object ids of the first frame, `bbox` the box of its objects, `moving_mask` (N,) the points that move by
    15 px or more.

    Args:
        clips: all clips, in the order of the episodes.
    """

    def __init__(self, clips: Sequence[ExportedClip]) -> None:
        self._numbers = {clip.clip_id: number for number, clip in enumerate(clips)}

    def export(self, clip: ExportedClip, out: Path) -> Path:
        from aot.export.davis import flatten

        result = clip.result
        xy, valid = clip_tracks(clip, ExportOptions(size=_SIZE))
        sequence = np.concatenate([xy, valid[..., None]], axis=-1).astype(np.float32).swapaxes(0, 1)
        ((_, masks, scores),) = clip.masks(result.index[:1])
        ids = flatten(masks, scores, result.object_id.astype(np.uint16))
        rows, columns = (np.linspace(0, size - 1, wanted).round().astype(int) for size, wanted in zip(ids.shape, _SIZE))
        objects = ids[np.ix_(rows, columns)]
        moved = np.linalg.norm(xy - xy[:1], axis=-1).max(axis=0)
        names = ", ".join(name for name in result.object_name if name)
        arrays = {
            "rgb_arr": np.stack(list(frames_of(clip, result.index, _SIZE))),
            "point_tracking_sequence": sequence,
            "bbox_point_tracking_sequence": sequence[chosen_points(valid[0], _NUM_BOX_POINTS, [0])],
            "sam_mask": objects.astype(np.float64),
            "moving_mask": moved >= _MIN_MOTION_PX,
            "bbox": _box(objects > 0),
            "task_description": np.array([names], dtype=np.str_),
        }
        group = out / ".zgroup"
        if not group.exists():
            write_text(group, '{"zarr_format": 2}')
        folder = out / f"episode_{self._numbers[clip.clip_id]}"
        with replacing_folder(folder) as part:
            write_group(part, arrays, {"clip_id": clip.clip_id})
        return folder


def _box(mask: np.ndarray) -> np.ndarray:
    """(4,) x0, y0, x1, y1 px of a mask; zeros if it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(4, dtype=np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float32)
