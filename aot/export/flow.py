"""Dense optical flow inside the masks of the objects, one file per kept frame and direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from aot.export.base import ExportedClip
from aot.export.davis import flatten
from aot.export.dense_flow import FlowField, interpolate
from aot.export.flow_files import write_colours, write_flo, write_kitti, write_npz
from aot.export.options import FlowFile
from aot.system.files import replacing_folder, write_errors
from aot.types import BoolArray, ClipResult, Float32Array, Float64Array

# The length that gets full colour: that of 99 % of the displacements of a clip.
_FULL_COLOUR_PERCENTILE = 99


class FlowExporter:
    """`<out>/<clip_id>/forward/<frame name>.flo` and so on: flow to the next kept frame; `backward`: to the previous.

    Args:
        files: which files to write: `.flo`, `.png` (KITTI), `.npz`, `_colours.png`.
    """

    def __init__(self, files: Sequence[FlowFile]) -> None:
        self._files = files

    def export(self, clip: ExportedClip, out: Path) -> Path:
        folder = out / clip.clip_id
        max_px = full_colour_px(clip.result)
        for direction, step in (("forward", 1), ("backward", -1)):
            with replacing_folder(folder / direction) as part, write_errors(folder / direction):
                for frame, field in flow_fields(clip, step):
                    self._write(part, clip.frame_name(frame), field, max_px)
        return folder

    def _write(self, folder: Path, name: str, field: FlowField, max_px: float) -> None:
        if "flo" in self._files:
            write_flo(folder / f"{name}.flo", field)
        if "kitti" in self._files:
            write_kitti(folder / f"{name}.png", field)
        if "npz" in self._files:
            write_npz(folder / f"{name}.npz", field)
        if "colours" in self._files:
            write_colours(folder / f"{name}_colours.png", field, max_px)


def flow_fields(clip: ExportedClip, step: int) -> Iterator[tuple[int, FlowField]]:
    """The fields of a clip, from every kept frame to the one `step` rows after it, as (source frame, field).

    Where masks overlap, a pixel belongs to the object with the higher score, as in `davis`.

    Raises:
        ExportError: the result does not have masks on every kept frame.
    """
    result = clip.result
    for row, (frame, masks, scores) in enumerate(clip.masks(result.index)):
        if 0 <= row + step < len(result.index):
            yield frame, flow_field(result, masks, scores, row, step)


def flow_field(result: ClipResult, masks: BoolArray, scores: Float32Array, row: int, step: int) -> FlowField:
    """The field from a row to the one `step` rows after it.

    Args:
        result: of the clip.
        masks: (K, H, W) of the objects on the row.
        scores: (K,) of these masks; where masks overlap, a pixel belongs to the object with the higher one.
        row, step: of the result.
    """
    valid = result.lifetimes.valid
    owner = flatten(masks, scores, np.arange(1, len(masks) + 1, dtype=np.uint16))
    field = FlowField(np.zeros((*owner.shape, 2), dtype=np.float32), np.zeros(owner.shape, dtype=np.bool_))
    for k, object_id in enumerate(result.object_id.tolist(), start=1):
        points: BoolArray = valid[row] & valid[row + step] & (result.track_object_id == object_id)
        xy = result.tracks.xy[:, points]
        own = owner == k
        found = interpolate(own, xy[row], xy[row + step])
        field.flow[own] = found.flow[own]
        field.valid[own] = found.valid[own]
    return field


def lengths(result: ClipResult) -> Float64Array:
    """(T-1, N) px that every valid point moves from a row to the next; NaN where it is not valid."""
    # float64: the squares of absurd positions would overflow.
    return np.asarray(np.linalg.norm(result.flow(valid=True).astype(np.float64), axis=2))


def full_colour_px(result: ClipResult) -> float:
    """The length in px of a displacement that is drawn in full colour."""
    length = lengths(result)
    known = length[np.isfinite(length)]
    return float(np.percentile(known, _FULL_COLOUR_PERCENTILE)) if len(known) else 1.0
