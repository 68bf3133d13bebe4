"""Wan-Move and MoveBench: tracks of 4n + 1 frames, and the first frame."""

from __future__ import annotations

from pathlib import Path

from aot.errors import ConfigError
from aot.export.base import ExportedClip
from aot.export.cotracker import CotrackerExporter
from aot.export.frames import frames_of, save_image
from aot.export.options import ExportOptions
from aot.system.files import replacing, write_errors


class WanMoveExporter:
    """`<out>/<clip_id>_tracks.npy`, `<clip_id>_visibility.npy` and `<clip_id>.jpg`, its first kept frame.

    Args:
        options: `num_frames`, 81 if not given, and `size`, 832x480 if not given.
    Raises:
        ConfigError: `num_frames` is not 4n + 1.
    """

    def __init__(self, options: ExportOptions) -> None:
        self._options = options.with_defaults(num_frames=81, size=(832, 480), paired=True)
        if self._options.num_frames is not None and self._options.num_frames % 4 != 1:
            raise ConfigError(f"--num-frames {self._options.num_frames}: Wan-Move expects 4n + 1, such as 81")

    def export(self, clip: ExportedClip, out: Path) -> Path:
        CotrackerExporter(self._options).export(clip, out)
        (rgb,) = frames_of(clip, clip.result.index[:1], self._options.size)
        path = out / f"{clip.clip_id}.jpg"
        with replacing(path) as part, write_errors(path):
            image = part.with_suffix(".jpg")
            try:
                save_image(image, rgb)
                image.replace(part)
            finally:
                image.unlink(missing_ok=True)
        return path
