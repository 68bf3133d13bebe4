"""Boxes of a detector or another tracker, made into a manifest: COCO's JSON and MOTChallenge's text.

Each object is prompted once, on the first frame that has a box of it. Without track ids nothing says which boxes of
two frames belong together: then the boxes of each clip's first frame that has any are the objects.
"""

from __future__ import annotations

import configparser
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from aot.errors import ConfigError
from aot.images.frames import image_files
from aot.manifest.schema import Manifest
from aot.system.files import write_text

_TRACK_KEYS = ("track_id", "instance_id", "object_id")
MAX_SIDE_PX = 2**16
"""No video is wider or higher."""
_FRAME_KEYS = ("frame_id", "frame_index")


@dataclass(frozen=True)
class Found:
    """One box of one object on one frame."""

    clip_id: str
    frame: int
    """Source frame, from 0."""
    track: int | None
    """None: nothing says which boxes of other frames show the same object."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 px."""
    score: float = 1.0
    name: str = ""
    mask: Mapping[str, Any] | None = None
    """COCO's compressed run lengths."""


def manifest_of(found: Iterable[Found], *, min_score: float = 0.0) -> dict[str, Any]:
    """The manifest that prompts every object once.

    Args:
        found: in any order.
        min_score: boxes below are left out.
    Raises:
        ConfigError: no box is left.
    """
    by_clip: dict[str, list[Found]] = defaultdict(list)
    for item in found:
        if item.score >= min_score and item.box[0] < item.box[2] and item.box[1] < item.box[3]:
            by_clip[item.clip_id].append(item)
    if not by_clip:
        raise ConfigError(f"no box with a score of at least {min_score:g}; nothing to prompt")
    clips = {clip_id: {"objects": _objects(items)} for clip_id, items in sorted(by_clip.items())}
    try:
        Manifest.model_validate({"clips": clips})
    except ValidationError as exc:
        raise ConfigError(f"what was read makes no manifest: {exc}") from exc
    return {"clips": clips}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write YAML, or JSON where the suffix says so."""
    if path.suffix == ".json":
        write_text(path, json.dumps(manifest, indent=1))
    else:
        write_text(path, yaml.safe_dump(dict(manifest), sort_keys=False, default_flow_style=None, width=120))


def read_coco(
    path: Path, *, images: Path | None = None, frames: Path | None = None, masks: bool = False
) -> list[Found]:
    """Read COCO annotations, or a detector's results.

    Args:
        path: {"images", "annotations", …}, or a list of results, which needs `images`.
        images: the annotation file that tells of the images of the results.
        frames: the folder of the clips' frame folders; a frame is then its file's place in it, whatever its number.
        masks: segmentations become mask prompts in place of boxes.
    Raises:
        ConfigError: naming what is missing.
    """
    content = _read_json(path)
    about = content if images is None else _read_json(images)
    annotations = content["annotations"] if isinstance(content, dict) and "annotations" in content else content
    if not isinstance(about, dict) or "images" not in about or not isinstance(annotations, list):
        raise ConfigError(
            f"{path}: a list of results says nothing of its images; expected images and annotations, "
            f"or the images of another file with --images FILE"
        )
    places: dict[str, dict[str, int]] = {}
    found = []
    try:
        videos = {video["id"]: str(video.get("name", video["id"])) for video in about.get("videos", ())}
        names = {category["id"]: str(category["name"]) for category in about.get("categories", ())}
        shown = {image["id"]: image for image in about["images"]}
        for item in annotations:
            image = shown[item["image_id"]]
            clip_id, frame = _clip_and_frame(image, videos, frames, places)
            x, y, width, height = map(float, item["bbox"])
            track = next((int(item[key]) for key in _TRACK_KEYS if item.get(key) is not None), None)
            found.append(
                Found(
                    clip_id=clip_id,
                    frame=frame,
                    track=track,
                    box=_inside((x, y, x + width, y + height), image.get("width"), image.get("height")),
                    score=float(item.get("score", 1.0)),
                    name=names.get(item.get("category_id"), ""),
                    mask=_run_lengths(item["segmentation"], image) if masks and item.get("segmentation") else None,
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise ConfigError(
            f"{path}: not COCO's ({type(exc).__name__}: {exc}); expected images with id and file_name, annotations "
            f"with image_id and bbox"
        ) from exc
    return found


def read_mot(path: Path, *, clip_id: str | None = None, size: tuple[int, int] | None = None) -> list[Found]:
    """Read one sequence of MOTChallenge: `frame, id, left, top, width, height, score, …`, frames and pixels from 1.

    Args:
        path: `SEQUENCE/det/det.txt`, `SEQUENCE/gt/gt.txt`, or a tracker's `SEQUENCE.txt`.
        clip_id: None: the sequence's name.
        size: width and height in px, to which boxes are cut; None: those of `SEQUENCE/seqinfo.ini`, if it is there.
    Raises:
        ConfigError: naming the line.
    """
    sequence = path.parent.parent if path.stem in ("det", "gt") and path.parent.name == path.stem else None
    name = clip_id or (sequence.name if sequence else path.stem)
    size = size or (_sequence_size(sequence / "seqinfo.ini") if sequence else None)
    found = []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}); expected MOTChallenge's text") from exc
    for number, cells in enumerate(csv.reader(text.splitlines()), start=1):
        if not cells:
            continue
        try:
            frame, track = int(float(cells[0])), int(float(cells[1]))
            left, top, width, height = map(float, cells[2:6])
            score = float(cells[6]) if len(cells) > 6 else 1.0
        except (ValueError, IndexError, OverflowError) as exc:
            raise ConfigError(
                f"{path}, line {number}: {','.join(cells)!r}; expected frame, id, left, top, width, height, score"
            ) from exc
        box = _inside((left - 1, top - 1, left - 1 + width, top - 1 + height), *(size or (None, None)))
        found.append(Found(name, frame - 1, track if track >= 0 else None, box, score))
    return found


def _objects(items: Sequence[Found]) -> list[dict[str, Any]]:
    first: dict[int, Found] = {}
    for item in sorted(items, key=lambda item: item.frame):
        if item.track is not None:
            first.setdefault(item.track, item)
    chosen = list(first.items())
    if not chosen:
        frame = min(item.frame for item in items)
        chosen = list(enumerate((item for item in items if item.frame == frame), start=1))
    # Ids as they are where they may be; from 1 on in order of appearance where one is 0.
    if min(track for track, _ in chosen) < 1:
        chosen = [(number, item) for number, (_, item) in enumerate(chosen, start=1)]
    return [_entry(object_id, item) for object_id, item in chosen]


def _entry(object_id: int, item: Found) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": object_id} | ({"name": item.name} if item.name else {}) | {"frame": item.frame}
    if item.mask is not None:
        return entry | {"mask": dict(item.mask)}
    return entry | {"box": [round(value, 3) for value in item.box]}


def _clip_and_frame(
    image: Mapping[str, Any], videos: Mapping[Any, str], frames: Path | None, places: dict[str, dict[str, int]]
) -> tuple[str, int]:
    """Of which clip an image is which frame: as its video and frame number say, or else its file's name."""
    file = PurePosixPath(str(image.get("file_name", "")))
    number = next((int(image[key]) for key in _FRAME_KEYS if image.get(key) is not None), None)
    split = re.fullmatch(r"(.*?)[_\-.]?([0-9]+)", file.stem)
    named = videos.get(image.get("video_id"))
    clip_id = named or (file.parent.as_posix() if len(file.parts) > 1 else split.group(1) if split else "")
    if frames is not None and clip_id:
        if clip_id not in places:
            files = image_files(frames / clip_id) if (frames / clip_id).is_dir() else []
            places[clip_id] = {path.stem: place for place, path in enumerate(files)}
        if file.stem not in places[clip_id]:
            raise ValueError(f"no frame {file.name} in {frames / clip_id}")
        return clip_id, places[clip_id][file.stem]
    number = int(split.group(2)) if number is None and split else number
    if not clip_id or number is None:
        raise ValueError(
            f"image {image.get('id')} ({file}) names no clip and frame; expected CLIP/00012.jpg, CLIP_00012.jpg, or "
            f"video_id and frame_id"
        )
    return clip_id, number


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any]:
    """Polygons and plain run lengths too, as compressed run lengths."""
    from pycocotools import mask as coco

    height, width = int(image["height"]), int(image["width"])
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise ValueError(f"an image of {width}x{height} px; expected sides of 1 to {MAX_SIDE_PX}")
    if isinstance(segmentation, dict):
        size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
        if isinstance(counts, str):
            return {"size": size, "counts": counts}
        if size != [height, width] or sum(map(int, counts)) != height * width or min(map(int, counts)) < 0:
            raise ValueError(f"run lengths that do not add up to an image of {width}x{height} px")
        parts = [coco.frPyObjects({"size": size, "counts": list(map(int, counts))}, height, width)]
    else:
        outlines = [list(map(float, outline)) for outline in segmentation]
        # pycocotools walks along every edge, wherever it leads, and looks at no length.
        if any(len(outline) < 6 or not max(map(abs, outline)) <= 2 * MAX_SIDE_PX for outline in outlines):
            raise ValueError("a polygon of fewer than three points, or far outside its image")
        parts = coco.frPyObjects(outlines, height, width)
    return {"size": [height, width], "counts": coco.merge(parts)["counts"].decode("ascii")}


def _inside(
    box: tuple[float, float, float, float], width: float | None, height: float | None
) -> tuple[float, float, float, float]:
    """Cut off what lies outside the frame; trackers write boxes that reach beyond it."""
    x0, y0, x1, y1 = max(0.0, box[0]), max(0.0, box[1]), box[2], box[3]
    return x0, y0, x1 if width is None else min(x1, float(width)), y1 if height is None else min(y1, float(height))


def _sequence_size(path: Path) -> tuple[int, int] | None:
    info = configparser.ConfigParser()
    if not path.is_file() or not info.read(path, encoding="utf-8") or "Sequence" not in info:
        return None
    return info.getint("Sequence", "imWidth"), info.getint("Sequence", "imHeight")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: cannot be read ({exc}); expected COCO's JSON") from exc
