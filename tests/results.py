"""Synthetic result files, written as a run writes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aot.lifetimes import Lifetimes
from aot.types import BoolArray, Clip, MaskBlock, Prompt, QueryPoints, Tracks
from aot.writing.hdf5 import new_clip_file

TEXTS = "clip_id source source_sha256 config_yaml config_hash versions device attempts seconds created".split()


def write_result(
    path: Path,
    *,
    masks: BoolArray,
    queries: list[tuple[float, float, float, int]] = (),  # type: ignore[assignment]
    xy: np.ndarray | None = None,
    visible: np.ndarray | None = None,
    index: list[int] | None = None,
    num_source_frames: int | None = None,
    clip: Clip | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Path:
    """Write a clip's result file.

    Args:
        masks: (T, K, H, W) bool, of objects 1 to K.
        queries: (t, x, y, object id) of every query point; x, y in px.
        xy: (T, N, 2) px; None: no point moves.
        visible: (T, N) bool; None: all points are visible.
        index: kept source frames; None: 0 to T - 1.
        num_source_frames: None: one more than the last kept frame.
        clip: clip id and prompts; None: clip "a", with a box prompt on frame 0 for every object.
        attributes: attributes to add or replace.
    """
    num_frames, num_objects, height, width = masks.shape
    frames = np.arange(num_frames) if index is None else np.array(index)
    frames = frames.astype(np.int64)
    ids = np.arange(1, num_objects + 1, dtype=np.int32)
    clip = clip or Clip("a", Path("a.mp4"), tuple(Prompt(int(i), 0, box=(0, 0, 4, 4)) for i in ids))
    points = np.array(queries, dtype=np.float64).reshape(-1, 4)
    shape = (num_frames, len(points))
    total = int(frames[-1]) + 1 if num_source_frames is None else num_source_frames
    own: dict[str, Any] = dict.fromkeys(TEXTS, "") | {
        "clip_id": clip.clip_id, "source": str(clip.source), "width": width, "height": height, "fps": 10.0,
        "num_source_frames": total, "frame_interval_requested": 1, "frame_interval": 1, "peak_memory_bytes": 1,
        "seconds": "{}",
    }  # fmt: skip
    with new_clip_file(
        path, clip, index=frames, time=frames / 10, mask_index=frames, height=height, width=width
    ) as writer:
        writer.write_masks(MaskBlock(frames, ids, masks, np.ones((num_frames, num_objects), dtype=np.float32)))
        ones = np.ones(shape, dtype=np.float32)
        tracks = Tracks(
            xy=(np.repeat(points[None, :, 1:3], num_frames, axis=0) if xy is None else xy).astype(np.float32),
            visible=np.ones(shape, dtype=np.bool_) if visible is None else visible,
            visibility=ones,
            confidence=ones,
        )
        txy = points[:, :3].astype(np.float32)
        queries = QueryPoints(txy, points[:, 3].astype(np.int32))
        life = Lifetimes.unlimited(tracks.visible, frames)
        writer.write_tracks(tracks, queries, np.ones(shape, dtype=np.bool_), life, np.ones((num_frames, num_objects)))
        writer.write_provenance(own | dict(attributes or {}), {})
    return path
