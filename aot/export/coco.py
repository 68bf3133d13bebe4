"""COCO annotations with track ids: JSON with run lengths; masks may overlap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aot.export.base import ExportedClip
from aot.export.frames import save_frames
from aot.images.masks import encode_rle
from aot.system.files import write_text


class CocoExporter:
    """`<out>/<clip_id>.json`: one video, one image per kept frame, one annotation with `track_id` per visible object.

    Args:
        categories: object name → category id, for all objects of the run; the same in every file.
        with_frames: write the frames too, at the `file_name` of the images below `out`.
    """

    def __init__(self, categories: Mapping[str, int], with_frames: bool = False) -> None:
        self._categories = categories
        self._with_frames = with_frames

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        height, width = clip.size
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for row, (frame, masks, scores) in enumerate(clip.masks(result.index)):
            images.append(
                {
                    "id": row + 1, "video_id": 1, "file_name": f"{clip.clip_id}/{clip.frame_name(frame)}.jpg",
                    "frame_id": frame, "time": float(result.time[row]), "height": height, "width": width,
                }
            )  # fmt: skip
            for k in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
                packed = encode_rle(masks[k])
                annotations.append(
                    {
                        "id": len(annotations) + 1, "image_id": row + 1, "video_id": 1,
                        "track_id": int(result.object_id[k]),
                        "category_id": self._categories[category_name(result.object_name[k])],
                        "segmentation": {"size": [height, width], "counts": packed.counts},
                        "bbox": _box(masks[k]), "area": int(np.count_nonzero(masks[k])), "iscrowd": 0,
                        "score": None if np.isnan(scores[k]) else float(scores[k]),
                    }
                )  # fmt: skip
        content = {
            "info": {"description": f"aot, {clip.clip_id}"},
            "videos": [{"id": 1, "name": clip.clip_id, "width": width, "height": height}],
            "categories": [{"id": number, "name": name} for name, number in self._categories.items()],
            "images": images,
            "annotations": annotations,
        }
        path = out / f"{clip.clip_id}.json"
        write_text(path, json.dumps(content))
        if self._with_frames:
            save_frames(clip, result.index, out / clip.clip_id)
        return path


def category_name(object_name: str) -> str:
    """Category of an object: its name, or "object" if it has none, because COCO requires a category."""
    return object_name or "object"


def _box(mask: np.ndarray) -> list[int]:
    """Bounding box of a mask, [x, y, width, height] px."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
