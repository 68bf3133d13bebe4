"""Schema "aot/2" of a clip's HDF5 file: its datasets and attributes, written to and read from open files.

docs/hdf5.md describes each of them. The functions take an open `h5py.File`; `aot.writing.reader` opens files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aot.errors import ResultError
from aot.lifetimes import Lifetimes
from aot.manifest.serialize import prompts_as_json
from aot.types import BoolArray, Clip, ClipResult, Float32Array, Float64Array, Int64Array, Tracks

SCHEMA = "aot/2"
# Written by versions before lifetimes of tracks were recorded. It lacks tracks/valid, tracks/born, tracks/ended and
# masks/coverage.
SCHEMA_WITHOUT_LIFETIMES = "aot/1"

# Level 1 takes a third of the default level's time on masks and makes files a few per cent larger. Any HDF5 library
# reads it without a plugin.
GZIP: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}

_REQUIRED_ATTRIBUTES = frozenset(
    "schema clip_id source source_sha256 width height fps num_source_frames frame_interval_requested frame_interval "
    "config_yaml config_hash versions device attempts seconds peak_memory_bytes created".split()
)

_POSITIVE_ATTRIBUTES = ("width", "height", "num_source_frames", "frame_interval_requested", "frame_interval")


class OtherSchema(ResultError):
    """The file has the schema of another version of aot; this version cannot check it."""


def create_datasets(
    file: h5py.File,
    clip: Clip,
    index: Int64Array,
    time: Float64Array,
    mask_index: Int64Array,
    size: tuple[int, int],
) -> None:
    """Create the datasets of frames, objects and masks in a new file; those of tracks are created with their values.

    Args:
        file: open for writing.
        clip: its objects and their prompts are recorded.
        index, time: (T,) kept source frames, and their presentation times in s.
        mask_index: (Tm,) the source frames among them that will have masks, ascending.
        size: height and width of the source, px.
    """
    object_ids = clip.object_ids
    by_object = [[prompt for prompt in clip.prompts if prompt.object_id == object_id] for object_id in object_ids]
    file["frames/index"] = index
    file["frames/time"] = time
    file["objects/id"] = np.asarray(object_ids, dtype=np.int32)
    file.create_dataset("objects/name", data=list(clip.object_names), dtype=h5py.string_dtype())
    prompts_json = [json.dumps(prompts_as_json(prompts)) for prompts in by_object]
    file.create_dataset("objects/prompt", data=prompts_json, dtype=h5py.string_dtype())
    shape = (len(mask_index), len(object_ids))
    # One chunk per mask: each object of each frame can be read and written separately. Unwritten masks read as False.
    chunks = (1, 1, *size) if len(mask_index) else None
    file.create_dataset("masks/data", (*shape, *size), np.bool_, chunks=chunks, **(GZIP if len(mask_index) else {}))
    file["masks/row"] = np.searchsorted(index, mask_index).astype(np.int64)
    file.create_dataset("masks/score", shape, np.float32, fillvalue=np.nan)


def read_result(file: h5py.File, *, with_masks: bool) -> ClipResult:
    """Read an open file into memory; `masks` is None unless `with_masks`."""
    tracks = file["tracks"]
    index, visible = file["frames/index"][()], tracks["visible"][()]
    return ClipResult(
        index=index,
        time=file["frames/time"][()],
        object_id=file["objects/id"][()],
        object_name=read_names(file),
        object_prompts=tuple(json.loads(text) for text in file["objects/prompt"].asstr()[()]),
        object_error=tuple(file["objects/error"].asstr()[()]),
        mask_row=file["masks/row"][()],
        masks=file["masks/data"][()] if with_masks else None,
        mask_score=file["masks/score"][()],
        coverage=_coverage(file),
        query=tracks["query"][()],
        track_object_id=tracks["object_id"][()],
        tracks=Tracks(
            xy=tracks["xy"][()],
            visible=visible,
            visibility=tracks["visibility"][()].astype(np.float32),
            confidence=tracks["confidence"][()].astype(np.float32),
        ),
        in_mask=tracks["in_mask"][()],
        lifetimes=_lifetimes(file, index, visible),
        attributes=attributes_of(file),
    )


def _has_lifetimes(file: h5py.File) -> bool:
    return bool(file.attrs.get("schema", SCHEMA) != SCHEMA_WITHOUT_LIFETIMES)


def _lifetimes(file: h5py.File, index: Int64Array, visible: BoolArray) -> Lifetimes:
    """The lifetimes of the tracks; those of a file without them do not end."""
    if not _has_lifetimes(file):
        return Lifetimes.unlimited(visible, index)
    tracks = file["tracks"]
    return Lifetimes(born=tracks["born"][()], ended=tracks["ended"][()], valid=tracks["valid"][()])


def _coverage(file: h5py.File) -> Float32Array:
    """(Tm, K) coverage of the masks; NaN in a file that does not have it."""
    if not _has_lifetimes(file):
        return np.full(file["masks/score"].shape, np.nan, dtype=np.float32)
    return np.asarray(file["masks/coverage"][()])


def read_names(file: h5py.File) -> tuple[str, ...]:
    """The K names of the objects; empty where an object has none."""
    return tuple(file["objects/name"].asstr()[()])


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """The root attributes as Python values."""
    return {name: plain(value) for name, value in file.attrs.items()}


def recorded_clip(attributes: Mapping[str, Any]) -> Clip:
    """The clip from whose frames a result was computed, without its prompts and time range, to open its source again.

    Args:
        attributes: root attributes of the result file.
    """
    return Clip(
        clip_id=attributes["clip_id"],
        source=Path(attributes["source"]),
        fps=float(attributes["fps"]),
        pattern=attributes.get("frame_pattern"),
        stream=attributes.get("stream"),
    )


def plain(value: Any) -> Any:
    """An attribute as a Python value: NumPy scalars become numbers."""
    return value.item() if isinstance(value, np.generic) else value


def check_schema(path: Path, file: h5py.File) -> None:
    """Raise OtherSchema if the file has the schema of another version; a file without the attribute passes."""
    schema = file.attrs.get("schema", SCHEMA)
    if schema not in (SCHEMA, SCHEMA_WITHOUT_LIFETIMES):
        raise OtherSchema(
            f"{path}: schema {schema!r}, expected {SCHEMA!r} or {SCHEMA_WITHOUT_LIFETIMES!r}; read it with the "
            f"version of aot that wrote it"
        )


def check_structure(path: Path, file: h5py.File) -> None:
    """Check that an open file has all attributes and datasets, and that their shapes and values are consistent.

    Args:
        path: named in messages.
        file: open for reading; the contents of `masks/data` are not read.
    Raises:
        OtherSchema: the file has another schema.
        ResultError: the file is damaged or incomplete; the message describes the problem.
    """
    check_schema(path, file)
    missing = sorted(_REQUIRED_ATTRIBUTES - set(file.attrs))
    if missing:
        raise ResultError(f"{path}: the attributes {', '.join(missing)} are missing; the file is incomplete")
    result = read_result(file, with_masks=False)
    _check_values(path, result)
    masks = file["masks/data"]
    size = (result.attributes["height"], result.attributes["width"])
    expected = (len(result.mask_row), len(result.object_id), *size)
    if masks.shape != expected or masks.dtype != np.bool_:
        raise ResultError(f"{path}: masks/data is {masks.shape} {masks.dtype}, expected {expected} bool")


def _check_values(path: Path, result: ClipResult) -> None:
    sampling = ("num_sampled_frames",) if "sample_fps" in result.attributes else ()
    for name in (*_POSITIVE_ATTRIBUTES, *sampling):
        value = result.attributes.get(name)
        if not isinstance(value, int) or value < 1:
            raise ResultError(f"{path}: {name} is {value!r}, expected an integer of at least 1")
    if "sample_fps" in result.attributes:
        rate = result.attributes["sample_fps"]
        if not isinstance(rate, int | float) or not 0 < rate < math.inf:
            raise ResultError(f"{path}: sample_fps is {rate!r}, expected a number above 0")
    objects = result.object_id
    ascending = {"frames/index": result.index, "frames/time": result.time, "masks/row": result.mask_row}
    wrong = [name for name, values in ascending.items() if not (np.diff(values) > 0).all()]
    wrong += ["objects/id"] if (objects < 1).any() or len(set(objects.tolist())) < len(objects) else []
    wrong += ["masks/row"] if not set(result.mask_row.tolist()) <= set(range(len(result.index))) else []
    wrong += ["tracks/object_id"] if not set(result.track_object_id.tolist()) <= set(objects.tolist()) else []
    wrong += ["objects/prompt"] if not all(map(_are_prompts, result.object_prompts)) else []
    if wrong:
        raise ResultError(
            f"{path}: {', '.join(dict.fromkeys(wrong))}: invalid values; expected ascending frames, times and rows, "
            f"distinct object ids of at least 1, points of these objects, and prompts with frames"
        )


def _are_prompts(value: Any) -> bool:
    """Whether a value is a list of prompts; checks only what readers rely on: frames of prompts and query points."""
    if not isinstance(value, list) or not all(isinstance(prompt, dict) for prompt in value):
        return False
    queries = [prompt.get("query_points", []) for prompt in value]
    if not all(isinstance(points, list) and all(isinstance(one, list) and one for one in points) for points in queries):
        return False
    frames = [prompt.get("frame") for prompt in value] + [query[0] for points in queries for query in points]
    return all(isinstance(frame, int | float) and math.isfinite(frame) for frame in frames)
