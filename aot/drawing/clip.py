"""Draw a finished clip from its result file and its source: the overlay video, and PNG files of its prompt frames."""

from __future__ import annotations

import numpy as np

from aot.decoding import open_source
from aot.drawing.style import OverlayStyle
from aot.errors import error_context
from aot.paths import ClipPaths
from aot.types import Clip, QueryPoints
from aot.writing.reader import MaskReader, load


def draw_clip(clip: Clip, paths: ClipPaths, style: OverlayStyle | None = None) -> None:
    """Draw the overlay video of a clip that has a result file.

    Raises:
        ResultError: the result file cannot be read.
        DecodeError: the source can no longer be read.
        WriteError: the overlay cannot be written. The result file is not changed in any case.
    """
    from aot.drawing.overlay import write_overlay  # imported here: OpenCV and FFmpeg are not needed to start a command

    with error_context(clip_id=clip.clip_id, stage="overlay"), open_source(clip) as frames:
        result = load(paths.result, masks=False)
        frames.keep(result.index)
        with MaskReader(paths.result) as masks:
            queries = QueryPoints(txy=result.query, object_id=result.track_object_id)
            write_overlay(
                paths.overlay,
                frames,
                masks=masks.row,
                tracks=result.tracks,
                queries=queries,
                object_ids=masks.object_id.tolist(),
                style=style,
            )


def write_prompt_images(clip: Clip, paths: ClipPaths) -> None:
    """Write the prompt frames and their masks as PNG files, for a clip that has a result file.

    Raises:
        ResultError: the result file cannot be read.
        DecodeError: the source can no longer be read.
        WriteError: an image cannot be written. The result file is not changed in any case.
    """
    from aot.drawing.images import write_images

    with error_context(clip_id=clip.clip_id, stage="pictures"), open_source(clip) as frames:
        result = load(paths.result, masks=False)
        # Those of the result, because words do not say on which frame an object was found.
        prompts = [prompt for of_object in result.object_prompts for prompt in of_object]
        prompt_frames = {prompt["frame"] for prompt in prompts if {"box", "points", "mask"} & set(prompt)}
        with MaskReader(paths.result) as reader:
            for row, scores in zip(result.mask_row.tolist(), result.mask_score):
                masks = reader.row(row) if result.index[row] in prompt_frames else None
                if masks is not None:
                    by_object = zip(result.object_id.tolist(), masks, scores)
                    known = {object_id: mask for object_id, mask, score in by_object if not np.isnan(score)}
                    write_images(paths.pictures, frames.read(result.index[[row]]), known)
