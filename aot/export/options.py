"""The options of exports, and the formats that have them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from aot.errors import ConfigError
from aot.export.lerobot.features import MaskForm

FlowFile = Literal["flo", "kitti", "npz", "colours"]
FLOW_FILES: tuple[FlowFile, ...] = ("flo", "kitti", "npz", "colours")
DEFAULT_FLOW_FILES: tuple[FlowFile, ...] = ("kitti", "colours")


@dataclass(frozen=True)
class ExportOptions:
    """Options of formats; a format ignores none that was given (`check_options`)."""

    stride: int = 4
    """Source frames between annotated frames (sa_v)."""
    with_video: bool = True
    """Include the frames (tapvid, rerun)."""
    with_frames: bool = False
    """Write the frames that the files refer to (coco, davis)."""
    paired: bool = False
    """Write tracks and visibility as two files (cotracker)."""
    num_frames: int | None = None
    """Frames of the resampled clip, at equal distances in time; None: all kept frames."""
    size: tuple[int, int] | None = None
    """Width and height, px, of the resampled image; None: that of the source, or the consumer's."""
    flow_files: tuple[FlowFile, ...] | None = None
    """Files of each frame (flow); None: `DEFAULT_FLOW_FILES`."""
    dataset: Path | None = None
    """The dataset to add features to (lerobot); None: the one that the run has processed."""
    in_place: bool = False
    """Replace the dataset, not write a copy (lerobot)."""
    masks: MaskForm | None = None
    """Form of the masks (lerobot); None: video."""
    points: int | None = None
    """Points of every frame (lerobot); None: as many as the clip with the most has."""

    def __post_init__(self) -> None:
        for name, value in (("stride", self.stride), ("num-frames", self.num_frames), ("points", self.points)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}: expected 1 or more")

    def with_defaults(self, **values: Any) -> ExportOptions:
        """The options, with values in place of those that were not given."""
        missing = [field.name for field in fields(self) if getattr(self, field.name) in (None, False)]
        return replace(self, **{name: value for name, value in values.items() if name in missing})


FORMATS_OF = {
    "with_frames": ("coco", "davis"),
    "paired": ("cotracker",),
    "flow_files": ("flow",),
    "num_frames": ("cotracker", "wan_move"),
    "size": ("cotracker", "wan_move", "atm", "tracegen"),
    "dataset": ("lerobot",),
    "in_place": ("lerobot",),
    "masks": ("lerobot",),
    "points": ("lerobot",),
}
"""Option → formats that have it."""


def check_options(name: str, options: ExportOptions) -> None:
    """Refuse options that the format does not have.

    Raises:
        ConfigError: names the option and the formats that have it.
    """
    for option, formats in FORMATS_OF.items():
        if getattr(options, option) not in (None, False) and name not in formats:
            raise ConfigError(
                f"--{option.replace('_', '-')}: --format {name} does not have this option; it belongs to "
                f"{', '.join(formats)}"
            )


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of "832x480".

    Raises:
        ConfigError: another form.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if found is None:
        raise ConfigError(f"--size {text}: expected WIDTHxHEIGHT in px, such as 832x480")
    return int(found[1]), int(found[2])
