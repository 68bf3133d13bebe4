"""Any-point Trajectory Modeling (ATM): one HDF5 file per demonstration, PNG frames beside."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from aot.export.base import ExportedClip
from aot.export.cotracker import clip_tracks
from aot.export.frames import frames_of, replacing_clip_folder, save_image
from aot.export.options import ExportOptions
from aot.system.files import replacing, write_errors

_VIEW = "agentview"
_SIZE = (128, 128)


class AtmExporter:
    """`<out>/<clip_id>.hdf5` with `root/agentview/video`, `tracks`, `vis`; `images/<clip_id>/agentview_<t>.png`.

    Positions are px of the resized image divided by its width and height. Actions, robot states and embeddings of the
    task are not known here: they are to be added under `root`.

    Args:
        options: `size` of the frames; 128x128, as in LIBERO, if it is not given.
    """

    def __init__(self, options: ExportOptions) -> None:
        self._options = options.with_defaults(size=_SIZE)

    def export(self, clip: ExportedClip, out: Path) -> Path:
        size = self._options.size or _SIZE
        xy, valid = clip_tracks(clip, self._options)
        video = np.stack(list(frames_of(clip, clip.result.index, size)))
        with replacing_clip_folder(out / "images" / clip.clip_id) as part:
            for t, rgb in enumerate(video):
                save_image(part / f"{_VIEW}_{t}.png", rgb)
        path = out / f"{clip.clip_id}.hdf5"
        with replacing(path) as written, write_errors(path), h5py.File(written, "w") as file:
            view = file.create_group(f"root/{_VIEW}")
            view["video"] = video.transpose(0, 3, 1, 2)[None]
            view["tracks"] = xy[None] / np.array(size, np.float32)
            view["vis"] = valid[None].astype(np.float32)
        return path
