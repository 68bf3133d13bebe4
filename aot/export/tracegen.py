"""TraceGen: one sample per frame, with the positions that follow it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.export.base import ExportedClip
from aot.export.cotracker import clip_tracks
from aot.export.frames import frames_of, replacing_clip_folder, save_image
from aot.export.options import ExportOptions
from aot.runs.resampling import chosen_points

_NUM_POINTS, _MAX_STEPS = 400, 128


class TraceGenExporter:
    """`<out>/<clip_id>/images/<t>.png` and `samples/<t>.npz` for every kept frame but the last.

    A sample has `keypoints` (400, 2) px on the frame, `traj` (400, 128, 2) px, which begins with them and is −inf after
    the last frame on which a point is valid, and `valid_steps` (128,) bool, the steps within the clip. Points are those
    valid on the frame, repeated if fewer are. Instructions are not written.

    Args:
        options: `size` of the frames; that of the source if it is not given.
    """

    def __init__(self, options: ExportOptions) -> None:
        self._options = options

    def export(self, clip: ExportedClip, out: Path) -> Path:
        xy, valid = clip_tracks(clip, self._options)
        with replacing_clip_folder(out / clip.clip_id) as part:
            (part / "samples").mkdir()
            images = frames_of(clip, clip.result.index[:-1], self._options.size)
            for row, rgb in enumerate(images):
                save_image(part / "images" / f"{row:05d}.png", rgb)
                chosen = chosen_points(valid[row], _NUM_POINTS, [0, row])
                steps = slice(row, row + _MAX_STEPS)
                following, is_valid = xy[steps, chosen], valid[steps, chosen]
                # True up to the last valid step, False after it.
                until_lost = np.logical_or.accumulate(is_valid[::-1], axis=0)[::-1]
                traj = np.full((_NUM_POINTS, _MAX_STEPS, 2), -np.inf, dtype=np.float32)
                traj[:, : len(following)] = np.where(until_lost[..., None], following, -np.inf).swapaxes(0, 1)
                np.savez_compressed(
                    part / "samples" / f"{row:05d}.npz",
                    keypoints=following[0],
                    traj=traj,
                    valid_steps=np.arange(_MAX_STEPS) < len(following),
                )
        return out / clip.clip_id
