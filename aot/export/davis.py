"""One palette PNG per source frame, as the evaluation servers of DAVIS and YouTube-VOS expect."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from aot.errors import ExportError
from aot.evaluate.full_rate import full_rate_frames
from aot.export.base import ExportedClip
from aot.export.frames import replacing_clip_folder, save_frames
from aot.types import BoolArray, Float32Array, UInt8Array

_MAX_OBJECTS = 254
_Id = TypeVar("_Id", np.uint8, np.uint16)


class DavisExporter:
    """`<out>/<clip_id>/<frame name>.png`; a palette index is an object id, 0 is background.

    Every source frame gets an image; frames that were not kept get that of the previous kept frame. Where objects
    overlap, the pixel belongs to the object with the higher mask score on that frame; if the scores are equal, to the
    object with the lower id.

    Args:
        with_frames: write the frames too, as `<out>/JPEGImages/<clip_id>/<frame name>.jpg`.
    """

    def __init__(self, with_frames: bool = False) -> None:
        self._with_frames = with_frames

    def export(self, clip: ExportedClip, out: Path) -> Path:
        from PIL import Image

        ids = clip.result.object_id
        if len(ids) and ids.max() > _MAX_OBJECTS:
            raise ExportError(
                f"{clip.clip_id}: object id {ids.max()} does not fit into a palette; expected at most "
                f"{_MAX_OBJECTS}: use smaller ids or another format"
            )
        palette = _palette().ravel().tolist()
        with replacing_clip_folder(out / clip.clip_id) as part:
            for frame, masks, scores in clip.masks(full_rate_frames(clip.result)):
                image = Image.fromarray(flatten(masks, scores, ids.astype(np.uint8))).convert("P")
                image.putpalette(palette)
                image.save(part / f"{clip.frame_name(frame)}.png")
        if self._with_frames:
            save_frames(clip, full_rate_frames(clip.result), out / "JPEGImages" / clip.clip_id)
        return out / clip.clip_id


def flatten(masks: BoolArray, scores: Float32Array, ids: NDArray[_Id]) -> NDArray[_Id]:
    """Flatten (K, H, W) masks that may overlap to (H, W) ids, with the dtype of `ids`; 0 is background."""
    indices = np.zeros(masks.shape[1:], dtype=ids.dtype)
    # Painted in ascending order of score, so that the highest is on top. An object without a mask has no score (NaN).
    for k in sorted(range(len(masks)), key=lambda k: (np.nan_to_num(scores[k], nan=-1.0), -int(ids[k]))):
        indices[masks[k]] = ids[k]
    return indices


def _palette() -> UInt8Array:
    """(256, 3) RGB colours of PASCAL VOC and DAVIS: the bits of the index distributed over the channels."""
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((index >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
