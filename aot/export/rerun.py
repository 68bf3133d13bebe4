"""A recording for the Rerun viewer: frames, masks and tracks on one timeline."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aot.decoding import open_source
from aot.errors import ConfigError, ExportError
from aot.export.base import ExportedClip
from aot.export.davis import flatten
from aot.system.files import replacing, write_errors
from aot.writing.reader import MaskReader
from aot.writing.schema import recorded_clip

if TYPE_CHECKING:
    from rerun import RecordingStream

_JPEG_QUALITY = 80
_MAX_ID = 2**16 - 1


class RerunExporter:
    """`<out>/<clip_id>.rrd`: `video`, `video/masks`, `video/points` over `frame` (source number) and `time`.

    Rerun's origin is the upper left corner of the frame: half a pixel is added to positions.

    Args:
        with_video: include the frames, as JPEG.
    Raises:
        ConfigError: the Rerun SDK is not installed.
    """

    def __init__(self, with_video: bool = True) -> None:
        self._with_video = with_video
        try:
            import rerun  # noqa: F401
        except ImportError as exc:
            raise ConfigError("--format rerun needs the Rerun SDK: pip install 'auto-objects-tracker[rerun]'") from exc

    def export(self, clip: ExportedClip, out: Path) -> Path:
        import rerun

        path = out / f"{clip.clip_id}.rrd"
        with replacing(path) as part, write_errors(path):
            recording = rerun.RecordingStream("aot", recording_id=clip.clip_id)
            recording.save(part)
            self._log(recording, clip)
            recording.flush()
            recording.disconnect()
        return path

    def _log(self, recording: RecordingStream, clip: ExportedClip) -> None:
        import rerun

        result = clip.result
        names = [
            rerun.AnnotationInfo(id=int(i), label=name or f"object {i}")
            for i, name in zip(result.object_id, result.object_name)
        ]
        rerun.log("video", rerun.AnnotationContext(names), static=True, recording=recording)
        if len(result.object_id) and result.object_id.max() > _MAX_ID:
            raise ExportError(
                f"{clip.clip_id}: object id {result.object_id.max()} is too large; expected at most {_MAX_ID}, the "
                f"largest class id of Rerun; use smaller ids or another format"
            )
        ids = result.object_id.astype(np.uint16)
        with ExitStack() as stack:
            masks = stack.enter_context(MaskReader(clip.path))
            images = None
            if self._with_video:
                frames = stack.enter_context(open_source(recorded_clip(result.attributes)))
                images = (rgb for block in frames.blocks(result.index) for rgb in block.rgb)
            for row, frame in enumerate(result.index.tolist()):
                rerun.set_time("frame", sequence=frame, recording=recording)
                rerun.set_time("time", duration=float(result.time[row]), recording=recording)
                if images is not None:
                    image = rerun.Image(next(images)).compress(jpeg_quality=_JPEG_QUALITY)
                    rerun.log("video", image, recording=recording)
                found = masks.row(row)
                if found is not None:
                    position = int(np.searchsorted(result.mask_row, row))
                    flat = rerun.SegmentationImage(flatten(found, result.mask_score[position], ids))
                    rerun.log("video/masks", flat, recording=recording)
                visible = np.flatnonzero(result.tracks.visible[row])
                points = rerun.Points2D(
                    result.tracks.xy[row, visible] + 0.5,
                    class_ids=result.track_object_id[visible].astype(np.uint16),
                    keypoint_ids=visible.astype(np.uint16),
                )
                rerun.log("video/points", points, recording=recording)
