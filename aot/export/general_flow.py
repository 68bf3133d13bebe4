"""General Flow: 2-D key points of the object and the masks of object and hand, one folder per clip."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aot.export.base import ExportedClip
from aot.export.frames import replacing_clip_folder

_HAND = "hand"


class GeneralFlowExporter:
    """`<clip_id>/kps_tracks.npy` (T, N, 2) px, `kps_visibility.npy` (T, N), `mask_obj.npy` and `mask_hand.npy` (H, W).

    The masks are those of the first kept frame. Objects named "hand" make `mask_hand`, and have no key points.
    """

    def export(self, clip: ExportedClip, out: Path) -> Path:
        result = clip.result
        is_hand = np.array([name == _HAND for name in result.object_name], dtype=np.bool_)
        points = ~np.isin(result.track_object_id, result.object_id[is_hand])
        ((_, masks, _),) = clip.masks(result.index[:1])
        arrays = {
            "kps_tracks": result.tracks.xy[:, points],
            "kps_visibility": result.lifetimes.valid[:, points],
            "mask_obj": masks[~is_hand].any(axis=0),
            "mask_hand": masks[is_hand].any(axis=0),
        }
        with replacing_clip_folder(out / clip.clip_id) as part:
            for name, array in arrays.items():
                np.save(part / f"{name}.npy", array)
        return out / clip.clip_id
