"""Convert boxes of a detector or another tracker to a manifest: COCO JSON and MOTChallenge text.

Each object is prompted once, on the first frame on which it has a box. Without track ids, boxes of different frames
cannot be associated: the objects are then the boxes of the clip's first frame that has any.
"""

from __future__ import annotations

import configparser
import json
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from aot.errors import ConfigError
from aot.images.frames import image_files
from aot.manifest.read import errors_in
from aot.system.files import write_text
from aot.system.text_files import MalformedFile, about_file, read_json, read_text

_TRACK_KEYS = ("track_id", "instance_id", "object_id")
_FRAME_KEYS = ("frame_id", "frame_index")
_EXPECTED_COCO = "expected COCO JSON: images with id and file_name, and annotations with image_id and bbox"
_EXPECTED_MOT = "expected lines of MOTChallenge text: frame, id, left, top, width, height, score"
MAX_SIDE_PX = 2**16
"""Maximum width and height of an image; larger than any video."""


@dataclass(frozen=True)
class Detection:
    """One box of one object on one frame."""

    clip_id: str
    frame: int
    """Source frame, from 0."""
    track: int | None
    """Track id; None: unknown."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 px."""
    score: float = 1.0
    name: str = ""
    mask: Mapping[str, Any] | None = None
    """COCO run lengths, compressed: {size, counts}."""


def manifest_of(detections: Iterable[Detection], *, min_score: float = 0.0) -> dict[str, Any]:
    """Create a manifest that prompts every object once.

    Args:
        detections: in any order.
        min_score: boxes with a lower score are skipped.
    Raises:
        ConfigError: no box remains, or the manifest would not be valid.
    """
    detections = list(detections)
    if not detections:
        raise ConfigError("the imported files contain no box; expected at least one")
    by_clip: dict[str, list[Detection]] = defaultdict(list)
    for item in detections:
        if item.score >= min_score and item.box[0] < item.box[2] and item.box[1] < item.box[3]:
            by_clip[item.clip_id].append(item)
    if not by_clip:
        raise ConfigError(f"no box has a score of at least {min_score:g}; lower --min-score")
    clips = {clip_id: {"objects": _objects(items)} for clip_id, items in sorted(by_clip.items())}
    if errors := errors_in({"clips": clips}):
        raise ConfigError("\n  ".join(["the imported boxes do not form a valid manifest:", *errors]))
    return {"clips": clips}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest: JSON if `path` ends in .json, otherwise YAML."""
    if path.suffix == ".json":
        write_text(path, json.dumps(manifest, indent=1))
    else:
        write_text(path, yaml.safe_dump(dict(manifest), sort_keys=False, default_flow_style=None, width=120))


def read_coco(
    path: Path, *, images: Path | None = None, frames: Path | None = None, masks: bool = False
) -> list[Detection]:
    """Read COCO annotations or results.

    Args:
        path: {"images", "annotations", …}, or a list of results, which needs `images`.
        images: annotation file with the images of a list of results.
        frames: folder that contains the frame folders of the clips. The frame number is then the position of the
            file in its folder; None: the number in the file's name.
        masks: import segmentations as mask prompts instead of boxes.
    Raises:
        ConfigError: a file cannot be read, or a key or image is missing.
    """
    content = _read_json(path)
    listing = content if images is None else _read_json(images)
    annotations = content["annotations"] if isinstance(content, dict) and "annotations" in content else content
    if not isinstance(listing, dict) or "images" not in listing or not isinstance(annotations, list):
        raise ConfigError(
            f"{path}: a list of results without the images; expected a file with images and annotations, or an "
            f"annotation file with the images as --images FILE"
        )
    try:
        videos = {video["id"]: str(video.get("name", video["id"])) for video in listing.get("videos", ())}
        names = {category["id"]: str(category["name"]) for category in listing.get("categories", ())}
        image_by_id = {image["id"]: image for image in listing["images"]}
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ConfigError(f"{about_file(images or path, exc)}; {_EXPECTED_COCO}") from exc
    locate = _FrameLocator(videos, frames)
    detections = []
    for number, item in enumerate(annotations, start=1):
        try:
            detections.append(_coco_detection(item, image_by_id, locate, names, masks))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise ConfigError(f"{about_file(f'{path}: annotation {number}', exc)}; {_EXPECTED_COCO}") from exc
    return detections


def read_mot(path: Path, *, clip_id: str | None = None, size: tuple[int, int] | None = None) -> list[Detection]:
    """Read a MOTChallenge sequence: `frame, id, left, top, width, height, score, …`, frames and pixels from 1.

    Args:
        path: `SEQUENCE/det/det.txt`, `SEQUENCE/gt/gt.txt`, or a tracker's `SEQUENCE.txt`.
        clip_id: None: the name of the sequence.
        size: width and height in px, to which boxes are cropped; None: those of `SEQUENCE/seqinfo.ini`, if it exists.
    Raises:
        ConfigError: the file cannot be read; the message names the invalid line.
    """
    sequence = path.parent.parent if path.stem in ("det", "gt") and path.parent.name == path.stem else None
    name = clip_id or (sequence.name if sequence else path.stem)
    size = size or (_sequence_size(sequence / "seqinfo.ini") if sequence else None)
    detections = []
    try:
        text = read_text(path)
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {_EXPECTED_MOT}") from exc
    if not text.strip():
        raise ConfigError(f"{path}: the file is empty; {_EXPECTED_MOT}")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        cells = line.split(",")
        try:
            frame, track = int(float(cells[0])), int(float(cells[1]))
            left, top, width, height = map(float, cells[2:6])
            score = float(cells[6]) if len(cells) > 6 else 1.0
        except (ValueError, IndexError, OverflowError) as exc:
            raise ConfigError(
                f"{path}, line {number}: {reprlib.repr(line)}; expected frame, id, left, top, width, height, score"
            ) from exc
        box = _inside((left - 1, top - 1, left - 1 + width, top - 1 + height), *(size or (None, None)))
        detections.append(Detection(name, frame - 1, track if track >= 0 else None, box, score))
    return detections


def _objects(items: Sequence[Detection]) -> list[dict[str, Any]]:
    first: dict[int, Detection] = {}
    for item in sorted(items, key=lambda item: item.frame):
        if item.track is not None:
            first.setdefault(item.track, item)
    chosen = list(first.items())
    if not chosen:
        frame = min(item.frame for item in items)
        chosen = list(enumerate((item for item in items if item.frame == frame), start=1))
    # Track ids are kept where all are valid object ids; otherwise objects are numbered from 1 by first appearance.
    if min(track for track, _ in chosen) < 1:
        chosen = [(number, item) for number, (_, item) in enumerate(chosen, start=1)]
    return [_entry(object_id, item) for object_id, item in chosen]


def _entry(object_id: int, item: Detection) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": object_id} | ({"name": item.name} if item.name else {}) | {"frame": item.frame}
    if item.mask is not None:
        return entry | {"mask": dict(item.mask)}
    return entry | {"box": [round(value, 3) for value in item.box]}


def _coco_detection(
    item: Mapping[str, Any],
    image_by_id: Mapping[Any, Mapping[str, Any]],
    locate: _FrameLocator,
    names: Mapping[Any, str],
    masks: bool,
) -> Detection:
    if item["image_id"] not in image_by_id:
        raise MalformedFile(f"its image_id {item['image_id']!r} is not among the images")
    image = image_by_id[item["image_id"]]
    clip_id, frame = locate(image)
    x, y, width, height = map(float, item["bbox"])
    return Detection(
        clip_id=clip_id,
        frame=frame,
        track=next((int(item[key]) for key in _TRACK_KEYS if item.get(key) is not None), None),
        box=_inside((x, y, x + width, y + height), image.get("width"), image.get("height")),
        score=float(item.get("score", 1.0)),
        name=names.get(item.get("category_id"), ""),
        mask=_run_lengths(item["segmentation"], image) if masks and item.get("segmentation") else None,
    )


class _FrameLocator:
    """Finds the clip id and source frame of an image: from its video and frame number, otherwise from its file name.

    Args:
        videos: names by id.
        frames: folder that contains the frame folders of the clips; None: the frame numbers of the images are used.
    """

    def __init__(self, videos: Mapping[Any, str], frames: Path | None) -> None:
        self._videos = videos
        self._frames = frames
        self._positions: dict[str, dict[str, int]] = {}

    def __call__(self, image: Mapping[str, Any]) -> tuple[str, int]:
        file = PurePosixPath(str(image.get("file_name", "")))
        split = re.fullmatch(r"(.*?)[_\-.]?([0-9]+)", file.stem)
        clip_id = self._videos.get(image.get("video_id"))
        if not clip_id:
            clip_id = file.parent.as_posix() if len(file.parts) > 1 else split.group(1) if split else ""
        if self._frames is not None and clip_id:
            return clip_id, self._position(self._frames / clip_id, file)
        number = next((int(image[key]) for key in _FRAME_KEYS if image.get(key) is not None), None)
        number = int(split.group(2)) if number is None and split else number
        if not clip_id or number is None:
            raise MalformedFile(
                f"image {image.get('id')} ({file}) has no clip and frame number; expected CLIP/00012.jpg, "
                f"CLIP_00012.jpg, or video_id and frame_id"
            )
        return clip_id, number

    def _position(self, folder: Path, file: PurePosixPath) -> int:
        """The position of an image in its frame folder."""
        if str(folder) not in self._positions:
            files = image_files(folder) if folder.is_dir() else []
            self._positions[str(folder)] = {path.stem: position for position, path in enumerate(files)}
        if file.stem not in self._positions[str(folder)]:
            raise MalformedFile(f"no frame {file.name} in {folder}")
        return self._positions[str(folder)][file.stem]


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any]:
    """A segmentation (polygons, plain or compressed run lengths) as compressed run lengths."""
    from pycocotools import mask as coco

    height, width = int(image["height"]), int(image["width"])
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise MalformedFile(f"an image of {width}x{height} px; expected sides of 1 to {MAX_SIDE_PX} px")
    if isinstance(segmentation, dict):
        size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
        if isinstance(counts, str):
            return {"size": size, "counts": counts}
        if size != [height, width] or sum(map(int, counts)) != height * width or min(map(int, counts)) < 0:
            raise MalformedFile(f"run lengths that do not add up to the image's {width}x{height} px")
        parts = [coco.frPyObjects({"size": size, "counts": list(map(int, counts))}, height, width)]
    else:
        outlines = [list(map(float, outline)) for outline in segmentation]
        # pycocotools checks neither length nor range of a polygon, and also traces edges far outside the image.
        if any(len(outline) < 6 or not max(map(abs, outline)) <= 2 * MAX_SIDE_PX for outline in outlines):
            raise MalformedFile("a polygon with fewer than three points, or far outside its image")
        parts = coco.frPyObjects(outlines, height, width)
    return {"size": [height, width], "counts": coco.merge(parts)["counts"].decode("ascii")}


def _inside(
    box: tuple[float, float, float, float], width: float | None, height: float | None
) -> tuple[float, float, float, float]:
    """Crop a box to the frame; trackers write boxes that extend beyond it."""
    x0, y0, x1, y1 = max(0.0, box[0]), max(0.0, box[1]), box[2], box[3]
    return x0, y0, x1 if width is None else min(x1, float(width)), y1 if height is None else min(y1, float(height))


def _sequence_size(path: Path) -> tuple[int, int] | None:
    """Width and height in px according to a seqinfo.ini; None if the file does not exist, or has no such section."""
    if not path.is_file():
        return None
    info = configparser.ConfigParser(interpolation=None)
    expected = "expected a section [Sequence] with the integers imWidth and imHeight; or give --size WIDTHxHEIGHT"
    try:
        info.read_string(read_text(path))
        if "Sequence" not in info:
            return None
        return info.getint("Sequence", "imWidth"), info.getint("Sequence", "imHeight")
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {expected}") from exc
    except (configparser.Error, ValueError) as exc:
        raise ConfigError(f"{path}: not valid; {expected}") from exc


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {_EXPECTED_COCO}") from exc
