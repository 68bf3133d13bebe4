"""The episodes of a dataset and the results that belong to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from aot.datasets.lerobot import EpisodeVideo
from aot.errors import DatasetError, ExportError
from aot.export.base import ExportedClip
from aot.system.array_fields import ArrayFields
from aot.system.hashing import sha256_of
from aot.system.os_errors import os_reason
from aot.types import BoolArray, ClipResult, Float32Array, Int64Array
from aot.writing.reader import load

MISSING = -1.0
"""x and y where there is no position, outside of the image. Not NaN: the tools of LeRobot copy tables by pandas, which
writes NaN as null, and then the loader fails."""


@dataclass(frozen=True, eq=False, repr=False)
class EpisodeTracks(ArrayFields):
    """The tracks of one camera on every frame of an episode, with the dataset's number of points."""

    xy: Float32Array
    """(L, N, 2) px; MISSING where there is no position."""
    visible: BoolArray
    """(L, N) `tracks/valid`; False where there is no position."""
    has_position: BoolArray
    """(L, N); False on frames that were not kept, and for points that pad the number."""
    object_id: Int64Array
    """(N,); 0 for points that pad the number."""

    def __post_init__(self) -> None:
        sizes: dict[str, int] = {}
        self._check("xy", np.float32, ("L", "N", 2), sizes)
        self._check("visible", np.bool_, ("L", "N"), sizes)
        self._check("has_position", np.bool_, ("L", "N"), sizes)
        self._check("object_id", np.int64, ("N",), sizes)


@dataclass(frozen=True)
class Episode:
    """One episode seen by one camera."""

    video: EpisodeVideo
    length: int
    """Number of frames."""
    clip: ExportedClip | None
    """Its result; None if it has none."""

    def result(self) -> ClipResult | None:
        """The result without masks, read again every time: those of all episodes may be larger than the memory.

        Raises:
            ResultError: the clip's file cannot be read.
        """
        return None if self.clip is None else load(self.clip.path, masks=False)

    def tracks(self, num_points: int) -> EpisodeTracks:
        """Of a clip with more points, some are taken at equal distances in their order.

        Raises:
            ResultError: the clip's file cannot be read.
        """
        xy = np.full((self.length, num_points, 2), MISSING, dtype=np.float32)
        visible, has_position = (np.zeros((self.length, num_points), dtype=np.bool_) for _ in range(2))
        object_id = np.zeros(num_points, dtype=np.int64)
        result = self.result()
        if result is not None:
            points = chosen(len(result.query), num_points)
            rows, columns = result.index - self.video.first_frame, np.arange(len(points))
            found = result.tracks.xy[:, points]
            is_finite = np.asarray(np.isfinite(found).all(axis=-1))
            has_position[np.ix_(rows, columns)] = is_finite
            xy[np.ix_(rows, columns)] = np.where(is_finite[..., None], found, MISSING)
            visible[np.ix_(rows, columns)] = result.lifetimes.valid[:, points] & is_finite
            object_id[: len(points)] = result.track_object_id[points]
        return EpisodeTracks(xy, visible, has_position, object_id)


def chosen(num_existing: int, num_points: int) -> Int64Array:
    """The positions of at most `num_points` points, at equal distances in their order: all objects keep some."""
    if num_existing <= num_points:
        return np.arange(num_existing, dtype=np.int64)
    return np.asarray(np.linspace(0, num_existing - 1, num_points).round().astype(np.int64))


@dataclass(frozen=True)
class Facts:
    """What an export has to know about a result, without its arrays."""

    attributes: dict[str, Any]
    """Those of the result that the metadata of the features contain."""
    size: tuple[int, int]
    """Height and width, px."""
    num_points: int
    num_masks: int
    """Frames with masks."""
    object_names: dict[int, str]
    """Object id → name; empty if it has none."""


def check_clip(clip: ExportedClip, episode: EpisodeVideo, size: tuple[int, int] | None) -> Facts:
    """Check that a result belongs to the video of an episode.

    Args:
        clip: of the run.
        episode: of the dataset, with the same clip id.
        size: height and width of the camera according to meta/info.json, px; None: not given there.
    Raises:
        ExportError: it has other frames, another size or another video.
        DatasetError: the dataset's video cannot be read.
        ResultError: the clip's file cannot be read.
    """
    result = load(clip.path, masks=False)
    clip_size = int(result.attributes["height"]), int(result.attributes["width"])
    changed = "the dataset is another one, or has changed since the run: export into the dataset that was processed"
    first, length = episode.first_frame, (episode.clip.expected_frames or (0, None))[1]
    kept = int(result.index[0]), int(result.index[-1])
    if kept[0] < first or (length is not None and kept[1] >= first + length):
        end = "the end" if length is None else first + length - 1
        raise ExportError(
            f"{clip.clip_id}: the result has frames {kept[0]} to {kept[1]} of the video, and the episode consists of "
            f"frames {first} to {end}; {changed}"
        )
    if size is not None and clip_size != size:
        has, camera_has = (f"{width}x{height} px" for height, width in (clip_size, size))
        raise ExportError(f"{clip.clip_id}: the result has {has}, and the camera {camera_has}; {changed}")
    recorded = str(result.attributes["source_sha256"])
    if (found := _sha256(episode.clip.source)) != recorded:
        raise ExportError(
            f"{clip.clip_id}: {episode.clip.source} has the SHA-256 {found[:12]}…, and the video of the result "
            f"{recorded[:12]}…; {changed}"
        )
    names = dict(zip(result.object_id.tolist(), result.object_name))
    attributes = {name: result.attributes.get(name) for name in ("weights", "frame_interval", "config_hash")}
    return Facts(attributes, clip_size, len(result.query), len(result.mask_row), names)


@cache
def _sha256(video: Path) -> str:
    try:
        return sha256_of(video)
    except OSError as exc:
        raise DatasetError(f"{video} cannot be read: {os_reason(exc)}; download the videos of the camera") from exc


def camera_metadata(camera: str, facts: Sequence[Facts], choices: Mapping[str, Any]) -> dict[str, Any]:
    """What has to travel with the arrays of one camera.

    Args:
        camera: its key.
        facts: about the results of its episodes, at least one.
        choices: the options of the run, by group.
    """
    height, width = facts[0].size
    objects: dict[str, list[str]] = {}
    for object_id, name in sorted({item for each in facts for item in each.object_names.items()}):
        objects.setdefault(str(object_id), []).append(name)
    weights: list[dict[str, Any]] = []
    for each in facts:
        weights += [entry for entry in json.loads(each.attributes.get("weights") or "[]") if entry not in weights]
    return {
        "camera": camera,
        "image_size": {"width": width, "height": height},
        "coordinates": "(x, y) in px of the camera's image, x to the right, y down, pixel centres at integers",
        "missing": f"{MISSING:g} for x and y, and not visible: frames without tracks, and points that pad the number",
        "objects": objects,
        "models": {role: choices.get(role) for role in ("segmenter", "tracker")},
        "weights": weights,
        "frame_interval": sorted({int(each.attributes["frame_interval"]) for each in facts}),
        "config_hash": sorted({str(each.attributes["config_hash"]) for each in facts}),
    }
