"""One clip's part of the report: the data of its page, subsampled so that pages of long clips load quickly too.

The worker that processed the clip writes it, so that the end of a run only has to list the clips.
"""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aot.errors import AotError, error_context
from aot.paths import ClipPaths, ClipReportPaths
from aot.runs.timing import in_order
from aot.self_checks import in_mask_share
from aot.system.files import replacing, write_errors, write_text
from aot.types import BoolArray, ClipResult, Float64Array, Int64Array, UInt8Array

if TYPE_CHECKING:
    from aot.writing.reader import MaskReader

# Limits of the charts: at most 130 KB of data.
_MAX_POINTS = 36
_MAX_ROWS = 600
_MAX_IMAGES = 6
_IMAGE_WIDTH = 640
_JPEG_QUALITY = 82
# Positions are stored in units of 1/4 px; -32768 marks a missing one.
_POSITION_STEPS = 4
_NO_POSITION = -32768
_TIME_DECIMALS = 4

_FACTS = (
    "source source_sha256 width height fps num_source_frames frame_interval frame_interval_requested config_hash "
    "device peak_memory_bytes created"
).split()
_OPTIONAL_FACTS = "decoder decoder_version decoder_fallback pixel_aspect_ratio stream sample_fps".split()
_JSON_FACTS = "versions attempts seconds peak_device_bytes weights notes".split()


def is_reported(paths: ClipPaths) -> bool:
    """Whether the clip's part exists and was made from the present result.

    Workers delete it before they change the overlay, which it shows too.
    """
    return is_made_from(paths.report.data, paths.result)


def is_made_from(data: Path, source: Path) -> bool:
    """Whether the data of a page shows the present state of a file: both then have the same modification time.

    The clocks of machines are not compared: the result of a machine whose clock is ahead would never seem up to date.
    """
    try:
        return data.stat().st_mtime_ns == source.stat().st_mtime_ns
    except OSError:
        return False


def report_clip(paths: ClipPaths, drawing_seconds: Mapping[str, float]) -> None:
    """Write the report's part of a finished clip.

    Args:
        paths: of the clip.
        drawing_seconds: time of each stage after the result was complete, as far as it is known, in s.
    Raises:
        ResultError: the clip's file cannot be read.
        WriteError: the report cannot be written.
    """
    from aot.writing.reader import MaskReader, load  # imported here: h5py is not needed to start a command

    with error_context(clip_id=paths.clip_id, stage="report"):
        result_ns = paths.result.stat().st_mtime_ns if paths.result.exists() else 0
        result = load(paths.result, masks=False)
        rows = _chosen_rows(len(result.index))
        with MaskReader(paths.result) as masks:
            area = _areas(result, masks, rows)
            flow = _write_flow_image(paths, result, masks)
            images, note = _images(paths, result, masks)
        write_report_data(
            paths.report,
            {
                **_facts(result, drawing_seconds),
                "objects": _objects(result),
                "frames": result.index.tolist(),
                "times": np.round(result.time - result.time[0], _TIME_DECIMALS).tolist(),
                "start": float(result.time[0]),
                "charts": _charts(result, rows, area),
                "pictures": images,
                "pictures_note": note,
                "flow": flow,
                "video": _link_video(paths),
            },
            source_ns=result_ns,
        )


def write_report_data(paths: ClipReportPaths, data: dict[str, Any], *, source_ns: int) -> None:
    """Write the data of a clip's page.

    Args:
        paths: paths of the clip's part of the report.
        data: JSON-serializable values.
        source_ns: modification time of the file that the page shows, see `is_made_from`, in ns.
    Raises:
        WriteError: the folder cannot be written.
    """
    write_text(paths.data, f"aot.showClip({json.dumps({'clip_id': paths.clip_id, **data}, allow_nan=False)});\n")
    with write_errors(paths.data):
        os.utime(paths.data, ns=(source_ns, source_ns))


def _facts(result: ClipResult, drawing_seconds: Mapping[str, float]) -> dict[str, Any]:
    attributes = result.attributes
    facts = {name: attributes[name] for name in _FACTS}
    facts |= {name: attributes[name] for name in _OPTIONAL_FACTS if name in attributes}
    facts |= {name: json.loads(attributes[name]) for name in _JSON_FACTS if name in attributes}
    facts["seconds"] = in_order(facts["seconds"])
    return {"facts": facts, "drawing_seconds": dict(drawing_seconds), "config": attributes["config_yaml"]}


def _objects(result: ClipResult) -> list[dict[str, Any]]:
    """One entry per object: name, error, colour, prompts, and mean scores."""
    from aot.drawing.colours import object_colour

    objects = []
    for column, object_id in enumerate(result.object_id.tolist()):
        own = result.track_object_id == object_id
        visible, inside = result.tracks.visible[:, own], result.in_mask[:, own]
        has_masks = np.isfinite(result.mask_score[:, column]).any()
        share = in_mask_share(visible, inside, result.mask_row) if has_masks else math.nan
        objects.append(
            {
                "id": object_id,
                "name": result.object_name[column],
                "error": result.object_error[column],
                "colour": list(object_colour(object_id)),
                "prompts": [_portable_prompt(prompt) for prompt in result.object_prompts[column]],
                "points": int(own.sum()),
                "visible": _fraction(visible),
                "in_mask": None if math.isnan(share) else share,
                "score": _mean(result.mask_score[:, column]),
            }
        )
    return objects


def _portable_prompt(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt without absolute paths and without the run lengths of its mask."""
    mask = prompt.get("mask")
    if mask is None:
        return prompt
    return {**prompt, "mask": Path(mask).name if isinstance(mask, str) else "as run lengths"}


def _chosen_rows(num_rows: int) -> Int64Array:
    return np.unique(np.linspace(0, num_rows - 1, min(num_rows, _MAX_ROWS)).round().astype(np.int64))


def _charts(result: ClipResult, rows: Int64Array, area: Float64Array) -> dict[str, Any]:
    """Data of the charts: areas and scores of masks, fraction of visible points, and individual points."""
    tracks, chosen = result.tracks, _chosen_points(result.track_object_id)
    position = {int(row): place for place, row in enumerate(result.mask_row)}
    places = [position.get(int(row)) for row in rows]
    score = np.full((len(rows), len(result.object_id)), np.nan)
    for place, found in enumerate(places):
        if found is not None:
            score[place] = result.mask_score[found]
    coverage = np.full((len(rows), len(result.object_id)), np.nan)
    for place, found in enumerate(places):
        if found is not None:
            coverage[place] = result.coverage[found]
    visible = [tracks.visible[rows][:, result.track_object_id == object_id] for object_id in result.object_id.tolist()]
    xy = tracks.xy[np.ix_(rows, chosen)]
    return {
        "rows": rows.tolist(),
        "area": [_numbers(column, 0) for column in area.T],
        "score": [_numbers(column, 3) for column in score.T],
        "coverage": [_numbers(column, 3) for column in coverage.T],
        "visible_share": [_numbers(points.mean(axis=1) if points.size else [], 3) for points in visible],
        "points": {
            "number": chosen.tolist(),
            "object_id": result.track_object_id[chosen].tolist(),
            "query_frame": result.query[chosen, 0].astype(int).tolist(),
            "num_points": len(result.track_object_id),
            "steps": _POSITION_STEPS,
            "none": _NO_POSITION,
            "x": _packed_positions(xy[..., 0]),
            "y": _packed_positions(xy[..., 1]),
            "visible": _packed((tracks.visible[np.ix_(rows, chosen)]).T.astype(np.uint8)),
            "visibility": _packed((tracks.visibility[np.ix_(rows, chosen)].T * 255).round().astype(np.uint8)),
        },
    }


def _chosen_points(object_id: np.ndarray) -> Int64Array:
    """Points to show, evenly distributed over the objects and over the points of each."""
    objects = np.unique(object_id)
    chosen = [np.zeros(0, np.int64)]
    for one in objects:
        own = np.flatnonzero(object_id == one)
        count = min(len(own), max(1, _MAX_POINTS // len(objects)))
        chosen.append(own[np.linspace(0, len(own) - 1, count).round().astype(np.int64)])
    return np.concatenate(chosen)[:_MAX_POINTS]


def _packed_positions(values: np.ndarray) -> str:
    """(R, N) px as base64 of 16-bit integers, point by point."""
    limit = -_NO_POSITION - 1
    with np.errstate(invalid="ignore"):
        steps = np.clip(values.astype(np.float64) * _POSITION_STEPS, -limit, limit).round()
        steps = np.where(np.isfinite(values), steps, _NO_POSITION)
    return _packed(steps.T.astype("<i2"))


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()


def _areas(result: ClipResult, masks: MaskReader, rows: Int64Array) -> Float64Array:
    """(R, K) mask areas on the chosen rows, px; NaN without a mask."""
    area = np.full((len(rows), len(result.object_id)), np.nan)
    scored = dict(zip(result.mask_row.tolist(), np.isfinite(result.mask_score)))
    for place, row in enumerate(rows.tolist()):
        found = masks.row(row) if row in scored else None
        if found is not None:
            area[place] = np.where(scored[row], found.sum(axis=(1, 2)), np.nan)
    return area


def _images(paths: ClipPaths, result: ClipResult, masks: MaskReader) -> tuple[list[dict[str, Any]], str]:
    """Images of the prompt frames with masks; the reason if there are none."""
    try:
        return _write_images(paths, result, masks, _prompt_frames(result)[:_MAX_IMAGES]), ""
    except AotError as error:  # the video may have been deleted; the page can be shown without it
        return [], str(error)


def _prompt_frames(result: ClipResult) -> list[int]:
    """Frames with prompts, in order; for objects with only query points, the frame of the first of them."""
    frames: set[int] = set()
    for prompts in result.object_prompts:
        visual = [prompt["frame"] for prompt in prompts if {"box", "points", "mask"} & set(prompt)]
        queried = [int(query[0]) for prompt in prompts for query in prompt.get("query_points", [])]
        frames |= set(visual or queried[:1])
    return sorted(frames & set(result.index.tolist()))


def _write_images(paths: ClipPaths, result: ClipResult, masks: MaskReader, frames: list[int]) -> list[dict[str, Any]]:
    import cv2

    from aot.drawing.colours import tint

    written = []
    for frame, rgb in _source_images(result, frames):
        image = rgb.copy()
        found: BoolArray | None = masks.row(int(np.searchsorted(result.index, frame)))
        if found is not None:
            tint(image, found, result.object_id.tolist())
        small = cv2.resize(image, _image_size(result), interpolation=cv2.INTER_AREA)
        path = paths.report.prompt_image(frame)
        _, jpeg = cv2.imencode(
            ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
        )
        with replacing(path) as part, write_errors(path):
            part.write_bytes(bytes(jpeg))
        written.append({"frame": frame, "file": path.relative_to(paths.report.root).as_posix()})
    return written


def _source_images(result: ClipResult, frames: list[int]) -> Iterator[tuple[int, UInt8Array]]:
    """Source frames as (number, (H, W, 3) RGB); the first one only is read without the rest of the source."""
    from aot.decoding import first_frame, open_source
    from aot.writing.schema import recorded_clip

    clip = recorded_clip(result.attributes)
    if frames == [0]:
        yield 0, first_frame(clip)
        return
    with open_source(clip) as source:
        for frame in frames:
            yield frame, source.read([frame]).rgb[0]


def _write_flow_image(paths: ClipPaths, result: ClipResult, reader: MaskReader) -> dict[str, Any] | None:
    """The colours of the flow on the frame where the valid points of the clip move most; None if none move."""
    import cv2

    from aot.export.flow import flow_field, full_colour_px, lengths
    from aot.export.flow_files import flow_colours

    moved = np.nan_to_num(lengths(result), posinf=0).sum(axis=1)
    places = np.flatnonzero(result.mask_row < len(moved))  # the last frame moves to no other one
    if not len(places) or not moved[result.mask_row[places]].max():
        return None
    place = places[moved[result.mask_row[places]].argmax()]
    row = int(result.mask_row[place])
    masks = reader.row(row)
    if masks is None:
        return None
    field, max_px = flow_field(result, masks, result.mask_score[place], row, 1), full_colour_px(result)
    image = np.zeros((*field.valid.shape, 3), dtype=np.uint8)
    image[field.valid] = flow_colours(field.flow[field.valid], max_px)[:, ::-1]
    path = paths.report.flow_image
    small = cv2.resize(image, _image_size(result), interpolation=cv2.INTER_NEAREST)
    _, png = cv2.imencode(".png", small, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as part, write_errors(path):
        part.write_bytes(bytes(png))
    file = path.relative_to(paths.report.root).as_posix()
    return {"frame": int(result.index[row]), "next": int(result.index[row + 1]), "full_px": max_px, "file": file}


def _image_size(result: ClipResult) -> tuple[int, int]:
    """Width and height at which a frame is shown, px: with square pixels, and at most _IMAGE_WIDTH wide."""
    attributes = result.attributes
    aspect = Fraction(attributes.get("pixel_aspect_ratio", "1:1").replace(":", "/"))
    width, height = attributes["width"] * float(aspect), attributes["height"]
    scale = min(1.0, _IMAGE_WIDTH / width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _link_video(paths: ClipPaths) -> str | None:
    """Hard-link the overlay into the report, so that the report can be moved without the run.

    A hard link takes no additional disk space.

    Returns:
        Path of the video relative to the report; None if there is no overlay.
    """
    if not paths.overlay.exists():
        return None
    video = paths.report.video
    try:
        with replacing(video) as part:
            part.unlink()
            os.link(paths.overlay, part)
    except (OSError, AotError):  # a file system without hard links
        return os.path.relpath(paths.overlay, paths.report.root).replace(os.sep, "/")
    return video.relative_to(paths.report.root).as_posix()


def _numbers(values: Any, decimals: int) -> list[float | None]:
    """Numbers for JSON, with None for NaN."""
    rounded = np.round(np.asarray(values, np.float64), decimals)
    return [None if not np.isfinite(value) else (int(value) if decimals == 0 else value) for value in rounded.tolist()]


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return round(float(known.mean()), 4) if known.size else None


def _fraction(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if values.size else None
