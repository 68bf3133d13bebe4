"""Shape of Motion: masks, frames, and the tracks from every frame to every other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from aot.export.base import ExportedClip
from aot.export.frames import frames_of, replacing_clip_folder, save_image
from aot.types import Float32Array

_MAX_LOGIT = 10.0


class ShapeOfMotionExporter:
    """`<out>/images/<clip_id>/`, `masks/<clip_id>/` and `bootstapir/<clip_id>/<q>_<t>.npy` for all kept frames q and t.

    An array is (P, 4): x and y px on t, the logit of being hidden, and that of the position being wrong, of the points
    that are valid on q. Masks are 255 on any object.
    """

    def export(self, clip: ExportedClip, out: Path) -> Path:
        index = clip.result.index
        names = [clip.frame_name(frame) for frame in index.tolist()]
        with replacing_clip_folder(out / "images" / clip.clip_id) as part:
            for name, rgb in zip(names, frames_of(clip, index)):
                save_image(part / f"{name}.png", rgb)
        with replacing_clip_folder(out / "masks" / clip.clip_id) as part:
            for name, (_, masks, _) in zip(names, clip.masks(index)):
                Image.fromarray(masks.any(axis=0).astype(np.uint8) * 255).save(part / f"{name}.png")
        values = _values(clip)
        valid = clip.result.lifetimes.valid
        with replacing_clip_folder(out / "bootstapir" / clip.clip_id) as part:
            for q, first in enumerate(names):
                for t, second in enumerate(names):
                    np.save(part / f"{first}_{second}.npy", values[t, valid[q]])
        return out / "bootstapir" / clip.clip_id


def _values(clip: ExportedClip) -> Float32Array:
    """(T, N, 4) x, y, logit of being hidden, logit of the position being wrong."""
    tracks, valid = clip.result.tracks, clip.result.lifetimes.valid
    hidden = np.where(valid, -_MAX_LOGIT, _MAX_LOGIT)
    confidence = np.clip(tracks.confidence.astype(np.float64), 1e-4, 1 - 1e-4)
    wrong = np.log((1 - confidence) / confidence)
    return np.concatenate([tracks.xy, hidden[..., None], wrong[..., None]], axis=-1).astype(np.float32)
