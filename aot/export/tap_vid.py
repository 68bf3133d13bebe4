"""TAP-Vid's pickles: points as shares of the frame, with the frames they lie on."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding import open_source
from aot.evaluate.tracks import RASTER
from aot.export.base import ExportedClip, as_shares
from aot.system.files import replacing, write_errors
from aot.types import Clip

_JPEG_QUALITY = 95


class TapVidExporter:
    """`<out>/<clip_id>.pkl`: {clip_id: {"video", "points", "occluded", "query_points", …}}; frame t is kept row t.

    Args:
        with_video: keep the frames too, as JPEG; TAP-Vid's readers expect them.
    """

    def __init__(self, with_video: bool = True) -> None:
        self._with_video = with_video

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        shares = as_shares(result.tracks.xy, clip.size)
        query = as_shares(result.query[:, 1:], clip.size)
        rows = np.searchsorted(result.index, result.query[:, 0].astype(np.int64))
        example: dict[str, Any] = {
            "points": np.ascontiguousarray(shares.swapaxes(0, 1)),
            "occluded": np.ascontiguousarray(~result.tracks.visible.T),
            # [t, y, x] on the raster, as TAP-Vid's models are asked.
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
    """The kept frames, coded; some hundred kilobytes each in memory."""
    from PIL import Image

    coded = []
    with open_source(Clip(clip_id=clip.clip_id, source=clip.source)) as frames:
        for block in frames.blocks(clip.result.index):
            for rgb in block.rgb:
                stream = io.BytesIO()
                Image.fromarray(rgb).save(stream, "JPEG", quality=_JPEG_QUALITY)
                coded.append(stream.getvalue())
    return coded
