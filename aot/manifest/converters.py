"""Convert boxes of a detector or another tracker to a manifest; `coco` and `mot` read them.

Each object is prompted once, on the first frame on which it has a box. Without track ids, boxes of different frames
cannot be associated: the objects are then the boxes of the clip's first frame that has any. What is left out is counted
and reported.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from aot.errors import ConfigError
from aot.manifest.read import errors_in
from aot.manifest.schema import MIN_BOX_PX
from aot.system.files import write_text
from aot.system.text import counted, first_names
from aot.system.text_files import MalformedFile

TrackIds = Literal["unique", "per-class"]
"""Whether a track id is one object whatever its class, or each class counts its own objects."""

_MAX_ID = 2**31 - 1
_MAX_ERRORS = 20


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
    category: Hashable = None
    """The class of the object, as the file identifies it; None: unknown."""

    @property
    def is_usable(self) -> bool:
        """Whether the box is at least a pixel wide and high."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1]) >= MIN_BOX_PX


@dataclass(frozen=True)
class Imported:
    """What was read from the files of another tool."""

    detections: tuple[Detection, ...]
    notes: tuple[str, ...] = ()
    """What was left out, with its number."""


@dataclass(frozen=True)
class ImportedManifest:
    """The content of a manifest."""

    content: dict[str, Any]
    notes: tuple[str, ...]
    """What was left out, with its number."""


def manifest_of(
    detections: Iterable[Detection], *, min_score: float = 0.0, track_ids: TrackIds | None = None
) -> ImportedManifest:
    """Create a manifest that prompts every object once.

    Args:
        detections: in any order.
        min_score: boxes with a lower score are left out.
        track_ids: None: per class if a track id has several classes on one frame.
    Raises:
        ConfigError: no box remains, the meaning of the track ids is ambiguous, or the manifest would not be valid.
    """
    detections = list(detections)
    if not detections:
        raise ConfigError("the imported files contain no box; expected at least one")
    is_per_class = _is_per_class(detections, track_ids)
    scored = [item for item in detections if item.score >= min_score]
    if not scored:
        raise ConfigError(f"no box has a score of at least {min_score:g}; lower --min-score")
    if all(0 <= value <= 1 for item in scored for value in item.box):
        raise ConfigError(
            f"the boxes are all within 0 to 1, such as {list(scored[0].box)}; positions are pixels of the source "
            f"video: multiply fractions by the width and the height of the video"
        )
    usable = [item for item in scored if item.is_usable]
    if not usable:
        raise ConfigError(f"no box is at least {MIN_BOX_PX} px wide and high inside its frame; check its coordinates")
    by_clip: dict[str, list[Detection]] = defaultdict(list)
    for item in usable:
        by_clip[item.clip_id].append(item)
    lost = Counter[str]()
    clips = {clip_id: {"objects": _objects(items, is_per_class, lost)} for clip_id, items in sorted(by_clip.items())}
    if errors := errors_in({"clips": clips}):
        more = [f"and {len(errors) - _MAX_ERRORS} more"] if len(errors) > _MAX_ERRORS else []
        raise ConfigError(
            "\n  ".join(["the imported boxes do not form a valid manifest:", *errors[:_MAX_ERRORS], *more])
        )
    lost[f"with a score below {min_score:g}"] = len(detections) - len(scored)
    lost[f"outside the frame or smaller than {MIN_BOX_PX} px"] = len(scored) - len(usable)
    notes = [f"left out: {counted(number, 'box', 'boxes')} {reason}" for reason, number in lost.items() if number]
    return ImportedManifest({"clips": clips}, (*notes, *_lost_objects(detections, usable, is_per_class)))


def source_frame(number: int, first_frame: int) -> int:
    """The source frame, from 0, of a frame number of another tool that counts from `first_frame`.

    Raises:
        MalformedFile: the frame is before the first one.
    """
    if number < first_frame:
        raise MalformedFile(f"frame {number} is before the first frame, {first_frame} (--first-frame)")
    return number - first_frame


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest: JSON if `path` ends in .json, otherwise YAML."""
    if path.suffix == ".json":
        write_text(path, json.dumps(manifest, indent=1))
    else:
        write_text(path, yaml.safe_dump(dict(manifest), sort_keys=False, default_flow_style=None, width=120))


def _is_per_class(detections: Sequence[Detection], track_ids: TrackIds | None) -> bool:
    """Whether objects of different classes may have the same track id.

    Raises:
        ConfigError: some track id has several classes, but never on the same frame, so that both is possible.
    """
    if track_ids is not None:
        return track_ids == "per-class"
    classes: dict[tuple[str, int], dict[Hashable, Detection]] = defaultdict(dict)
    on_frame: dict[tuple[str, int, int], Hashable] = {}
    for item in detections:
        if item.track is not None:
            if on_frame.setdefault((item.clip_id, item.track, item.frame), item.category) != item.category:
                return True
            classes[item.clip_id, item.track].setdefault(item.category, item)
    changing = [found for found in classes.values() if len(found) > 1]
    if changing:
        first, second, *_ = changing[0].values()
        raise ConfigError(
            f"clip {first.clip_id!r}: track {first.track} is {_class_of(first)} on frame {first.frame} and "
            f"{_class_of(second)} on frame {second.frame} ({counted(len(changing), 'such track')}); give "
            f"--track-ids unique if this is one object whose class changes, or --track-ids per-class if every class "
            f"counts its own objects"
        )
    return False


def _class_of(item: Detection) -> str:
    return repr(item.name) if item.name else f"of class {item.category}"


def _key(item: Detection, is_per_class: bool) -> tuple[int | None, Hashable]:
    """What identifies the object of a detection within its clip."""
    return item.track, item.category if is_per_class else None


def _objects(items: Sequence[Detection], is_per_class: bool, lost: Counter[str]) -> list[dict[str, Any]]:
    """The objects of one clip; `lost` counts the boxes that are left out, by reason."""
    first: dict[tuple[int | None, Hashable], Detection] = {}
    known: set[tuple[int | None, Hashable, int]] = set()
    for item in sorted(items, key=lambda item: item.frame):
        if item.track is None:
            continue
        key = _key(item, is_per_class)
        lost["of an object that has another one on the same frame"] += (*key, item.frame) in known
        known.add((*key, item.frame))
        first.setdefault(key, item)
    untracked = [item for item in items if item.track is None]
    if first:
        chosen = [(key[0] or 0, item) for key, item in first.items()]
        lost["without a track id in a clip with track ids"] += len(untracked)
    else:
        frame = min(item.frame for item in items)
        chosen = list(enumerate((item for item in items if item.frame == frame), start=1))
        lost["without a track id, on frames after the first one with boxes"] += len(untracked) - len(chosen)
    ids = [track for track, _ in chosen]
    # Track ids are kept where all are valid object ids; otherwise objects are numbered from 1 by first appearance.
    if min(ids) < 1 or max(ids) > _MAX_ID or len(set(ids)) < len(ids):
        chosen = [(number, item) for number, (_, item) in enumerate(chosen, start=1)]
    return [_entry(object_id, item) for object_id, item in chosen]


def _lost_objects(detections: Sequence[Detection], usable: Sequence[Detection], is_per_class: bool) -> list[str]:
    """The tracks of which no box is usable, as a note."""
    kept = {(item.clip_id, *_key(item, is_per_class)) for item in usable}
    lost = {(item.clip_id, *_key(item, is_per_class)): item for item in detections if item.track is not None}
    names = [f"clip {item.clip_id!r} track {item.track}" for key, item in lost.items() if key not in kept]
    return [f"not in the manifest: {counted(len(names), 'object')} without a usable box: {first_names(names)}"] * bool(
        names
    )


def _entry(object_id: int, item: Detection) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": object_id} | ({"name": item.name} if item.name else {}) | {"frame": item.frame}
    if item.mask is not None:
        return entry | {"mask": dict(item.mask)}
    return entry | {"box": [round(value, 3) for value in item.box]}


def inside_frame(
    box: tuple[float, float, float, float], width: float | None, height: float | None
) -> tuple[float, float, float, float]:
    """Crop a box to the frame; trackers write boxes that extend beyond it."""
    x0, y0, x1, y1 = max(0.0, box[0]), max(0.0, box[1]), box[2], box[3]
    return x0, y0, x1 if width is None else min(x1, float(width)), y1 if height is None else min(y1, float(height))
