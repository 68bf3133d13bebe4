"""The features that an export adds to a LeRobot dataset: their names, and their entries in meta/info.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aot.datasets.lerobot import METADATA

MaskForm = Literal["video", "npz", "none"]
MASK_FORMS: tuple[MaskForm, ...] = ("video", "npz", "none")
UNLABELLED = 255
"""The value of all pixels of frames without masks, as in PASCAL VOC; 0 is background."""


@dataclass(frozen=True)
class Names:
    """Names of the features of one camera.

    Args:
        camera: `top` for observation.images.top.
    """

    camera: str

    @property
    def tracks(self) -> str:
        return f"observation.tracks.{self.camera}"

    @property
    def visible(self) -> str:
        return f"{self.tracks}.visible"

    @property
    def object_id(self) -> str:
        return f"{self.tracks}.object_id"

    @property
    def masks(self) -> str:
        """The label video."""
        return f"observation.masks.{self.camera}"

    @property
    def mask_path(self) -> str:
        """Paths of NPZ files. Not an observation: LeRobot 0.3 normalises all observations, and these are text."""
        return f"annotation.masks.{self.camera}.path"

    @property
    def all(self) -> tuple[str, ...]:
        return (self.tracks, self.visible, self.object_id, self.masks, self.mask_path)


def names_of(cameras: Sequence[str]) -> dict[str, Names]:
    """Camera key → names of its features; the part after observation.images. where that is unique."""
    short = {camera: camera.removeprefix("observation.").removeprefix("images.") for camera in cameras}
    unique = len(set(short.values())) == len(short)
    return {camera: Names(short[camera] if unique else camera) for camera in cameras}


def track_features(names: Names, num_points: int, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Feature → its entry in meta/info.json."""
    of = {"tracks": names.tracks}
    return {
        names.tracks: {
            "dtype": "float32", "shape": [num_points, 2], "names": ["points", "coordinates"],
            "info": {METADATA: dict(metadata)},
        },
        names.visible: {
            "dtype": "bool", "shape": [num_points], "names": None,
            "info": {METADATA: of | {"meaning": "the point is visible and still on its object"}},
        },
        names.object_id: {
            "dtype": "int64", "shape": [num_points], "names": None,
            "info": {METADATA: of | {"meaning": "the object of the point; 0: no point"}},
        },
    }  # fmt: skip


def mask_features(
    names: Names, form: MaskForm, size: tuple[int, int], fps: float, metadata: Mapping[str, Any]
) -> dict[str, Any]:
    """Feature → its entry in meta/info.json.

    Args:
        names: of the camera.
        form: video or npz.
        size: height and width, px.
        fps: of the dataset.
        metadata: of the camera and the models.
    """
    height, width = size
    if form == "npz":
        meaning = (
            "NPZ file below the root of the dataset; its array 000012 has the masks of frame_index 12 as packed bits"
        )
        entry: dict[str, Any] = {"dtype": "string", "shape": [1], "names": None, "info": {}}
        name = names.mask_path
    else:
        meaning = f"value of a pixel: object id; 0: background; {UNLABELLED} everywhere: the frame has no masks"
        name = names.masks
        entry = {
            "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
            "info": {
                "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": "gbrp",
                "video.is_depth_map": False, "video.fps": fps, "video.channels": 3, "has_audio": False,
            },
        }  # fmt: skip
    entry["info"][METADATA] = dict(metadata) | {"meaning": meaning}
    return {name: entry}


def hub_type(feature: Mapping[str, Any]) -> dict[str, Any]:
    """The type of a column as the package `datasets` records it in parquet files.

    "Sequence" is read by all its versions; those from 4 on write "List" for it.
    """
    value = {"dtype": feature["dtype"], "_type": "Value"}
    shape = feature["shape"]
    if shape == [1]:
        return value
    if len(shape) == 1:
        return {"feature": value, "length": shape[0], "_type": "Sequence"}
    return {"shape": shape, "dtype": feature["dtype"], "_type": "Array2D"}
