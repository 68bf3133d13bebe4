"""Tracks in the layout of CoTracker's outputs, as dumps of whole datasets have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.export.base import ExportedClip
from aot.export.options import ExportOptions
from aot.runs.resampling import fractional_rows, resampled, scaled
from aot.system.files import replacing, write_errors
from aot.types import BoolArray, Float32Array


class CotrackerExporter:
    """`<out>/<clip_id>.npz`: `tracks` (1, T, N, 2) float32 px, `visibility` (1, T, N) bool, where a track is valid.

    Args:
        options: `paired` writes `<clip_id>_tracks.npy` and `<clip_id>_visibility.npy` instead; `num_frames` and `size`
            resample.
    """

    def __init__(self, options: ExportOptions) -> None:
        self._options = options

    def export(self, clip: ExportedClip, out: Path) -> Path:
        xy, valid = clip_tracks(clip, self._options)
        arrays = {"tracks": xy[None], "visibility": valid[None]}
        if self._options.paired:
            for name, array in arrays.items():
                path = out / f"{clip.clip_id}_{name}.npy"
                with replacing(path) as part, write_errors(path), part.open("wb") as file:
                    np.save(file, array)
            return path
        path = out / f"{clip.clip_id}.npz"
        with replacing(path) as part, write_errors(path), part.open("wb") as file:
            np.savez_compressed(file, tracks=arrays["tracks"], visibility=arrays["visibility"])
        return path


def clip_tracks(clip: ExportedClip, options: ExportOptions) -> tuple[Float32Array, BoolArray]:
    """The (T, N, 2) positions and (T, N) validity of a clip, resampled to the frames and the size of the options."""
    result = clip.result
    height, width = clip.size
    xy, valid = result.tracks.xy, result.lifetimes.valid
    if options.num_frames is not None:
        xy, valid = resampled(xy, valid, fractional_rows(result.time, options.num_frames))
    return scaled(xy, (width, height), options.size or (width, height)), valid
