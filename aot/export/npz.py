"""One `.npz` file per clip; reading it requires only NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aot.export.base import ExportedClip
from aot.system.files import replacing, write_errors
from aot.writing.reader import MaskReader


class NpzExporter:
    """`<out>/<clip_id>.npz`: every dataset of the HDF5 file (`tracks/xy` as `tracks_xy`), with masks as packed bits.

    Masks: `np.unpackbits(masks_packed, axis=-1, count=width).view(bool)` is (Tm, K, H, W).
    """

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        with MaskReader(clip.path) as reader:
            packed = [np.packbits(masks, axis=-1) for _, masks in reader]
        height, width = clip.size
        nothing = np.zeros((0, len(result.object_id), height, (width + 7) // 8), dtype=np.uint8)
        arrays: dict[str, Any] = {
            "frames_index": result.index,
            "frames_time": result.time,
            "objects_id": result.object_id,
            "objects_name": np.array(result.object_name, dtype=np.str_),
            "objects_error": np.array(result.object_error, dtype=np.str_),
            "objects_prompt": np.array([json.dumps(prompts) for prompts in result.object_prompts], dtype=np.str_),
            "masks_row": result.mask_row,
            "masks_score": result.mask_score,
            "masks_coverage": result.coverage,
            "masks_packed": np.stack(packed) if packed else nothing,
            "tracks_xy": result.tracks.xy,
            "tracks_visible": result.tracks.visible,
            "tracks_visibility": result.tracks.visibility,
            "tracks_confidence": result.tracks.confidence,
            "tracks_query": result.query,
            "tracks_object_id": result.track_object_id,
            "tracks_in_mask": result.in_mask,
            "tracks_valid": result.lifetimes.valid,
            "tracks_born": result.lifetimes.born,
            "tracks_ended": result.lifetimes.ended,
            "attributes": np.array(json.dumps(result.attributes, default=str)),
        }
        path = out / f"{clip.clip_id}.npz"
        with replacing(path) as part, write_errors(path), part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        return path
