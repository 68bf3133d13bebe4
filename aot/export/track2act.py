"""Track2Act: one pickle per sample of eight frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from aot.errors import ExportError
from aot.export.base import ExportedClip
from aot.export.cotracker import clip_tracks
from aot.export.frames import frames_of, replacing_clip_folder
from aot.export.options import ExportOptions
from aot.runs.resampling import chosen_points

_NUM_FRAMES, _NUM_POINTS, _RASTER = 8, 400, (96, 96)


class Track2ActExporter:
    """`<out>/<clip_id>/<number>.pkl`: `action` (1, 8, 400, 2) px of 96x96, `img` (8, 3, 96, 96) float32 in 0..255.

    Track2Act's training passes `img` to its network as it is stored, and its inference passes 0..255.
    Samples are consecutive and do not overlap; frames after the last complete sample are left out. Points are those
    valid on the sample's first frame, repeated if fewer are.
    """

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        num_samples = len(result.index) // _NUM_FRAMES
        if not num_samples:
            raise ExportError(
                f"{clip.clip_id}: has {len(result.index)} kept frames; track2act requires at least {_NUM_FRAMES}: use "
                f"a smaller frame_interval"
            )
        xy, valid = clip_tracks(clip, ExportOptions(size=_RASTER))
        kept = result.index[: num_samples * _NUM_FRAMES]
        images = frames_of(clip, kept, _RASTER)
        with replacing_clip_folder(out / clip.clip_id) as part:
            for number in range(num_samples):
                first = number * _NUM_FRAMES
                rgb = np.stack([next(images) for _ in range(_NUM_FRAMES)])
                chosen = chosen_points(valid[first], _NUM_POINTS, [0, first])
                sample = {
                    "action": xy[first : first + _NUM_FRAMES, chosen][None],
                    "img": rgb.transpose(0, 3, 1, 2).astype(np.float32),
                }
                (part / f"{number:05d}.pkl").write_bytes(pickle.dumps(sample))
        return out / clip.clip_id
