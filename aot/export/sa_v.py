"""SA-V masklets: JSON with COCO run lengths; masks may overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from aot.evaluate.full_rate import full_rate_frames
from aot.export.base import ExportedClip
from aot.images.masks import encode_rle
from aot.system.files import write_text
from aot.types import LOWEST_OBJECT_ID

# SA-V's area limits between small, medium and large, px.
_SMALL, _MEDIUM = 32**2, 96**2


class SaVExporter:
    """`<out>/<clip_id>_auto.json`; `masklet[i][k]` is object `masklet_id[k]` on source frame i · stride.

    Args:
        stride: source frames between annotated frames; 4 in SA-V.
    """

    def __init__(self, stride: int = 4) -> None:
        self._stride = stride

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        frames = full_rate_frames(result)
        # SA-V starts at frame 0: before the selected time range, masks are empty.
        every = np.arange(0, frames[-1] + 1, self._stride, dtype=np.int64)
        height, width = clip.size
        num_objects = len(result.object_id)
        blank = _as_json(np.zeros((height, width), dtype=np.bool_))
        masklet = [[blank] * num_objects for _ in range(int((every < frames[0]).sum()))]
        areas = [[0] * num_objects for _ in masklet]
        for _, masks, _ in clip.masks(every[every >= frames[0]]):
            masklet.append([_as_json(mask) for mask in masks])
            areas.append([int(np.count_nonzero(mask)) for mask in masks])
        content: dict[str, Any] = {
            "video_id": clip.clip_id,
            "video_duration": float(result.attributes["num_source_frames"]) / float(result.attributes["fps"]),
            "video_frame_count": float(result.attributes["num_source_frames"]),
            "video_height": float(height),
            "video_width": float(width),
            "video_resolution": float(height * width),
            "video_environment": "",
            "video_split": "",
            "masklet": masklet,
            "masklet_id": (result.object_id - LOWEST_OBJECT_ID).tolist(),
            "masklet_num": num_objects,
            **_statistics(np.array(areas, dtype=np.int64).reshape(len(masklet), num_objects), height * width, every),
        }
        path = out / f"{clip.clip_id}_auto.json"
        write_text(path, json.dumps(content))
        return path


def _as_json(mask: np.ndarray) -> dict[str, Any]:
    packed = encode_rle(mask)
    return {"size": [packed.height, packed.width], "counts": packed.counts}


def _statistics(areas: np.ndarray, resolution: int, frames: np.ndarray) -> dict[str, Any]:
    """SA-V's statistics per masklet; `areas` is (frames, objects) in px."""
    visible = areas > 0
    mean = [float(areas[visible[:, k], k].mean()) if visible[:, k].any() else 0.0 for k in range(areas.shape[1])]
    first = [int(column.argmax()) if column.any() else 0 for column in visible.T]
    changes = [int(np.count_nonzero(np.diff(column[start:].astype(int)))) for column, start in zip(visible.T, first)]
    return {
        "masklet_size_rel": [area / resolution for area in mean],
        "masklet_size_abs": mean,
        "masklet_size_bucket": ["small" if a < _SMALL else "medium" if a < _MEDIUM else "large" for a in mean],
        "masklet_visibility_changes": changes,
        "masklet_first_appeared_frame": [int(frames[start]) for start in first],
        "masklet_frame_count": [len(areas)] * areas.shape[1],
        "masklet_edited_frame_count": [0] * areas.shape[1],
        "masklet_type": ["auto"] * areas.shape[1],
    }
