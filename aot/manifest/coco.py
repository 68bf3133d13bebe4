"""COCO annotations, results and video annotations as detections."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from aot.errors import ConfigError, DecodeError
from aot.images.frames import image_files
from aot.manifest.converters import Detection, Imported, inside_frame, source_frame
from aot.system.listing import composed, find_composed
from aot.system.text import counted
from aot.system.text_files import MalformedFile, about_file, read_json

_TRACK_KEYS = ("track_id", "instance_id", "object_id")
_FRAME_KEYS = ("frame_id", "frame_index")
_EXPECTED_COCO = "expected COCO JSON: images with id and file_name, and annotations with image_id and bbox"
MAX_SIDE_PX = 2**16
"""Maximum width and height of an image; larger than any video."""

_VIDEO_SUFFIXES = frozenset(".avi .gif .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split())
# Roboflow adds the suffix of the original file and a hash to its name.
_ROBOFLOW_NAME = re.compile(r"(.+)_(jpe?g|png|bmp|webp|tiff?)\.rf\.[0-9A-Za-z]{20,}", re.IGNORECASE)
_HASH = re.compile(r"(?:.*[_.-])?(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{16,}(?:-[0-9a-f]+)*", re.IGNORECASE)
# What tools write before the number of a frame; it does not name a clip.
_FRAME_WORDS = frozenset({"", "frame", "frames", "image", "images", "img", "im", "default", "screenshot"})


def read_coco(
    path: Path,
    *,
    images: Path | None = None,
    frames: Path | None = None,
    pattern: str | None = None,
    masks: bool = False,
    clip_id: str | None = None,
    first_frame: int | None = None,
) -> Imported:
    """Read COCO annotations or results.

    Args:
        path: {"images", "annotations", …}, or a list of results, which needs `images`.
        images: annotation file with the images of a list of results.
        frames: folder that contains the frame folders of the clips. The frame number is then the position of the
            file in its folder; None: the number in the file's name.
        pattern: of the names of the frames in these folders, see `image_files`; None: all images are frames.
        masks: import segmentations as mask prompts instead of boxes.
        clip_id: of all images; None: the image's video, otherwise its file name.
        first_frame: number of the first frame of every clip; None: 0, if any image has this number.
    Raises:
        ConfigError: a file cannot be read, a key or image is missing, or the numbers of the frames are ambiguous.
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
        videos = {} if clip_id else _video_names(_by_id(listing, "videos"))
        names = {number: str(category["name"]) for number, category in _by_id(listing, "categories").items()}
        image_by_id = _by_id(listing, "images")
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise ConfigError(f"{about_file(images or path, exc)}; {_EXPECTED_COCO}") from exc
    locate = _FrameLocator(videos, frames, pattern, clip_id)
    first_frame = 0 if first_frame is None and locate.has_frame_0(image_by_id.values()) else first_frame
    detections: list[Detection] = []
    num_ignored = 0
    for number, item in enumerate(annotations, start=1):
        try:
            if item.get("ignore"):
                num_ignored += 1
            else:
                detections.append(_coco_detection(item, image_by_id, locate, names, masks))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as exc:
            raise ConfigError(f"{about_file(f'{path}: annotation {number}', exc)}; {_EXPECTED_COCO}") from exc
    ignored = f"{path}: left out: {counted(num_ignored, 'box', 'boxes')} to be ignored (the key ignore)"
    return Imported(_from_0(path, detections, 0 if frames else first_frame), (ignored,) if num_ignored else ())


def _from_0(path: Path, detections: Sequence[Detection], first_frame: int | None) -> tuple[Detection, ...]:
    """The detections with source frames, from 0, in place of the file's frame numbers."""
    if first_frame is None and detections:
        lowest = min(detections, key=lambda item: item.frame)
        raise ConfigError(
            f"{path}: no image is frame 0; the lowest frame with a box is {lowest.frame} of clip {lowest.clip_id!r}: "
            f"frames may be counted from 0 or from 1; give --first-frame 0 or --first-frame 1, or --frames FOLDER for "
            f"positions in the folders of frames"
        )
    try:
        return tuple(replace(item, frame=source_frame(item.frame, first_frame or 0)) for item in detections)
    except MalformedFile as exc:
        raise ConfigError(exc.about(path)) from exc


def _by_id(listing: Mapping[str, Any], key: str) -> dict[Any, Mapping[str, Any]]:
    """The entries of a list by their ids, which must be different."""
    entries: dict[Any, Mapping[str, Any]] = {}
    for entry in listing.get(key, ()):
        if entries.setdefault(entry["id"], entry) is not entry:
            raise MalformedFile(f"two {key} have the id {entry['id']!r}; expected different ids")
    return entries


def _video_names(videos: Mapping[Any, Mapping[str, Any]]) -> dict[Any, str]:
    """The clip ids of the videos: their names, or the names of their files without the suffix."""
    names: dict[Any, str] = {}
    for number, video in videos.items():
        path = _path(video.get("name") or video.get("file_name") or number)
        name = str(path.with_suffix("") if path.suffix.lower() in _VIDEO_SUFFIXES else path)
        if name in names.values():
            raise MalformedFile(f"two videos have the name {name!r}; expected different names")
        names[number] = name
    return names


def _path(name: Any) -> PurePosixPath:
    """A path, which may have been written on Windows."""
    return PurePosixPath(str(name).replace("\\", "/"))


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
        track=_track_id(item),
        box=inside_frame((x, y, x + width, y + height), image.get("width"), image.get("height")),
        score=float(item.get("score", 1.0)),
        name=names.get(item.get("category_id"), ""),
        mask=_run_lengths(item["segmentation"], image) if masks and item.get("segmentation") else None,
        category=item.get("category_id"),
    )


def _track_id(item: Mapping[str, Any]) -> int | None:
    """The track id of an annotation, which CVAT writes among its attributes; None: it has none."""
    attributes = item.get("attributes")
    for place in (item, attributes if isinstance(attributes, dict) else {}):
        for key in _TRACK_KEYS:
            if place.get(key) is not None:
                return _integer(place, key)
    return None


def _integer(entry: Mapping[str, Any], key: str) -> int:
    """An integer of an entry, which may be written as text or as 1.0."""
    number = int(entry[key])
    if isinstance(entry[key], float) and number != entry[key]:
        raise MalformedFile(f"its {key} {entry[key]} is not an integer")
    return number


class _FrameLocator:
    """Finds the clip id and frame number of an image: from its video and frame number, otherwise from its file name.

    Args:
        videos: names by id.
        frames: folder that contains the frame folders of the clips; None: the frame numbers of the images are used.
        pattern: of the names of the frames in these folders; None: all images are frames.
        clip_id: of all images; None: each image names its own.
    """

    def __init__(
        self, videos: Mapping[Any, str], frames: Path | None, pattern: str | None, clip_id: str | None
    ) -> None:
        self._videos = videos
        self._frames = frames
        self._pattern = pattern
        self._clip_id = clip_id
        self._positions: dict[str, dict[str, int]] = {}
        self._image_at: dict[tuple[str, int], Any] = {}

    def has_frame_0(self, images: Iterable[Mapping[str, Any]]) -> bool:
        """Whether the number of any image is 0, so that frames are counted from 0."""
        for image in images:
            with suppress(TypeError, ValueError, AttributeError, OverflowError):
                if _frame_number(image, _file_of(image)) == 0:
                    return True
        return False

    def __call__(self, image: Mapping[str, Any]) -> tuple[str, int]:
        """Clip id and frame number.

        Raises:
            MalformedFile: the image has none, or the same as another image.
        """
        file = _file_of(image)
        video = image.get("video_id")
        if self._videos and video is not None and video not in self._videos:
            raise MalformedFile(f"image {image['id']}: its video_id {video!r} is not among the videos")
        clip_id = self._clip_id or self._videos.get(video) or _clip_of(file)
        if self._frames is not None and clip_id:
            number: int | None = self._position(find_composed(self._frames, clip_id), file)
        else:
            number = _frame_number(image, file)
        if not clip_id or number is None:
            raise MalformedFile(
                f"image {image.get('id')} ({file}) has no clip and frame number; expected CLIP/00012.jpg, "
                f"CLIP_00012.jpg, or video_id and frame_id; --clip NAME gives the clip of all images"
            )
        other = self._image_at.setdefault((clip_id, number), image["id"])
        if other != image["id"]:
            raise MalformedFile(
                f"the images {other} and {image['id']} are both frame {number} of clip {clip_id!r}; expected one image "
                f"per frame: remove augmented copies"
            )
        return clip_id, number

    def _position(self, folder: Path, file: PurePosixPath) -> int:
        """The position of an image in its frame folder."""
        if str(folder) not in self._positions:
            files = _frame_files(folder, self._pattern) if folder.is_dir() else []
            self._positions[str(folder)] = {composed(path.stem): position for position, path in enumerate(files)}
        stem = composed(file.stem)
        if stem not in self._positions[str(folder)]:
            raise MalformedFile(f"no frame {file.name} in {folder}")
        return self._positions[str(folder)][stem]


def _frame_files(folder: Path, pattern: str | None) -> list[Path]:
    """As `image_files`.

    Raises:
        ConfigError: names the option of the command.
    """
    try:
        return image_files(folder, pattern)
    except DecodeError as exc:
        raise ConfigError(f"{exc}; in aot.prompts, the option is --pattern") from exc


def _file_of(image: Mapping[str, Any]) -> PurePosixPath:
    """The file of an image, with the name that it had before Roboflow renamed it."""
    file = _path(image.get("file_name", ""))
    renamed = _ROBOFLOW_NAME.fullmatch(file.stem)
    if renamed is None:
        return file
    extra = image.get("extra")
    original = extra.get("name") if isinstance(extra, dict) else None
    # Its folder is the split of the data set (train, valid), not the clip.
    return _path(original or f"{renamed[1]}.{renamed[2]}")


def _split_name(file: PurePosixPath) -> re.Match[str] | None:
    """The name of a file as a prefix and a number; None if it has no number, or ends in a hash."""
    return None if _HASH.fullmatch(file.stem) else re.fullmatch(r"(.*?)[_\-.]?([0-9]+)", file.stem)


def _clip_of(file: PurePosixPath) -> str:
    """The clip that the path of an image names; empty: none."""
    if len(file.parts) > 1:
        return file.parent.as_posix()
    split = _split_name(file)
    return split[1] if split and split[1].lower() not in _FRAME_WORDS else ""


def _frame_number(image: Mapping[str, Any], file: PurePosixPath) -> int | None:
    number = next((_integer(image, key) for key in _FRAME_KEYS if image.get(key) is not None), None)
    split = _split_name(file)
    return int(split[2]) if number is None and split else number


def _run_lengths(segmentation: Any, image: Mapping[str, Any]) -> dict[str, Any]:
    """A segmentation (polygons, plain or compressed run lengths) as compressed run lengths."""
    from pycocotools import mask as coco

    height, width = int(image["height"]), int(image["width"])
    if not (1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise MalformedFile(f"an image of {width}x{height} px; expected sides of 1 to {MAX_SIDE_PX} px")
    if isinstance(segmentation, dict):
        size, counts = [int(side) for side in segmentation["size"]], segmentation["counts"]
        if size != [height, width]:
            raise MalformedFile(f"a mask of size {size}; expected [{height}, {width}], height and width of its image")
        if isinstance(counts, str):
            return {"size": size, "counts": counts}
        if sum(map(int, counts)) != height * width or min(map(int, counts)) < 0:
            raise MalformedFile(f"run lengths that do not add up to the image's {width}x{height} px")
        parts = [coco.frPyObjects({"size": size, "counts": list(map(int, counts))}, height, width)]
    else:
        outlines = [list(map(float, outline)) for outline in segmentation]
        # pycocotools checks neither length nor range of a polygon, and also traces edges far outside the image.
        if any(len(outline) < 6 or not max(map(abs, outline)) <= 2 * MAX_SIDE_PX for outline in outlines):
            raise MalformedFile("a polygon with fewer than three points, or far outside its image")
        parts = coco.frPyObjects(outlines, height, width)
    return {"size": [height, width], "counts": coco.merge(parts)["counts"].decode("ascii")}


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except MalformedFile as exc:
        raise ConfigError(f"{exc.about(path)}; {_EXPECTED_COCO}") from exc
