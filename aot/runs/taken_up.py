"""The summary of a result whose worker was stopped before it recorded it, from the result file."""

from __future__ import annotations

import json

from aot.pipeline import ClipSummary
from aot.retry import Attempt
from aot.self_checks import in_mask_share
from aot.types import ClipResult


def summary_of(result: ClipResult) -> ClipSummary:
    """What the worker would have recorded; the time of its last stage is the one until it wrote the file's attributes.

    Args:
        result: read without its masks.
    """
    attributes, visible = result.attributes, result.tracks.visible
    attempts = [Attempt.from_json(record) for record in json.loads(attributes["attempts"])]
    errors = zip(result.object_id.tolist(), result.object_error)
    return ClipSummary(
        clip_id=attributes["clip_id"],
        num_objects=len(result.object_id),
        num_points=len(result.query),
        num_frames=len(result.index),
        num_source_frames=attributes["num_source_frames"],
        frame_interval=attributes["frame_interval"],
        visible_share=float(visible.mean()),
        in_mask_share=in_mask_share(visible, result.in_mask, result.mask_row),
        checks={int(object_id): check for object_id, check in json.loads(attributes["checks"]).items()},
        seconds=json.loads(attributes["seconds"]),
        peak_memory_bytes=attributes["peak_memory_bytes"],
        peak_device_bytes=json.loads(attributes["peak_device_bytes"]),
        object_errors={object_id: error for object_id, error in errors if error},
        decoder=attributes["decoder"],
        decoder_fallback=attributes["decoder_fallback"],
        rung=attempts[-1].rung.number,
        num_attempts=len(attempts),
        notes=tuple(json.loads(attributes["notes"])),
        width=attributes["width"],
        height=attributes["height"],
        fps=attributes["fps"],
        object_names=tuple(result.object_name),
    )
