"""TAP-Vid pickles: points as fractions of the frame size, with the frames."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from aot.coordinates import as_fractions
from aot.decoding import open_source
from aot.evaluate.tracks import RASTER
from aot.export.base import ExportedClip
from aot.system.files import replacing, write_errors
from aot.writing.schema import recorded_clip

_JPEG_QUALITY = 95


class TapVidExporter:
    """`<out>/<clip_id>.pkl`: {clip_id: {"video", "points", "occluded", "query_points", …}}; frame t is kept row t.

    Args:
        with_video: include the frames, as JPEG; TAP-Vid's readers expect them.
    """

    def __init__(self, with_video: bool = True) -> None:
        self._with_video = with_video

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        height, width = clip.size
        fractions = result.xy(normalised=True)
        query = as_fractions(result.query[:, 1:], width, height)
        rows = np.searchsorted(result.index, result.query[:, 0].astype(np.int64))
        example: dict[str, Any] = {
            "points": np.ascontiguousarray(fractions.swapaxes(0, 1)),
            "occluded": np.ascontiguousarray(~result.tracks.visible.T),
            # [t, y, x] on the raster, as TAP-Vid models expect.
            "query_points": np.column_stack([rows, RASTER * query[:, 1], RASTER * query[:, 0]]).astype(np.float32),
            "source_frames": result.index,
            "object_id": result.track_object_id,
        }
        if self._with_video:
            example["video"] = _jpegs(clip)
        path = out / f"{clip.clip_id}.pkl"
        with replacing(path) as part, write_errors(path):
            part.write_bytes(pickle.dumps({clip.clip_id: example}))
        return path


def _jpegs(clip: ExportedClip) -> list[bytes]:
    """The kept frames as JPEG, a few hundred kilobytes each."""
    from PIL import Image

    encoded = []
    with open_source(recorded_clip(clip.result.attributes)) as frames:
        for block in frames.blocks(clip.result.index):
            for rgb in block.rgb:
                stream = io.BytesIO()
                Image.fromarray(rgb).save(stream, "JPEG", quality=_JPEG_QUALITY)
                encoded.append(stream.getvalue())
    return encoded
