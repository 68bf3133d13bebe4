"""The style of overlays. Each video stores the style it was drawn with, so that a changed style redraws it."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict

_BOX_HEAD_BYTES = 8
_TAIL_BYTES = 512
_MARK = "aot overlay "
# Options that version 0.1 did not have: with their defaults, its videos are not drawn again.
_LATER_OPTIONS = ("max_height",)


class OverlayStyle(BaseModel):
    """The options of `overlay.*`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    colour: Literal["start", "object"] = "start"
    """Colour of the points: "start", a rainbow over the heights of the query points, as in CoTracker's demo; "object",
    the colour of their object."""
    trail: Annotated[int, Ge(0), Le(255)] = 10
    """Length of the trails, in rows until they have faded; 0 draws none."""
    tint: Annotated[float, Ge(0), Le(1)] = 0.45
    """Opacity of the object's colour in the pixels of its mask."""
    outline: bool = True
    """Draw a line around each mask."""
    label: bool = True
    """Write frame number and time into the corner."""
    side_by_side: bool = False
    """Put the source on the left, the overlay on the right."""
    max_height: Annotated[int, Ge(16)] = 720
    """Maximum height of the video in px; larger frames are reduced to it."""

    @cached_property
    def mark(self) -> str:
        """Comment that identifies this style in the metadata of a video."""
        defaults = {name for name in _LATER_OPTIONS if getattr(self, name) == type(self).model_fields[name].default}
        return _MARK + hashlib.sha256(self.model_dump_json(exclude=defaults).encode()).hexdigest()[:12]

    def matches(self, video: Path) -> bool:
        """Whether a video was drawn in this style; False if there is no such video.

        Reads a few hundred bytes: the comment is at the end of the index, which precedes the frames.
        """
        try:
            with video.open("rb") as file:
                start = 0
                for _ in range(3):
                    file.seek(start)
                    head = file.read(_BOX_HEAD_BYTES)
                    size, kind = int.from_bytes(head[:4], "big"), head[4:]
                    start += max(size, _BOX_HEAD_BYTES)
                    if kind == b"moov":
                        file.seek(max(0, start - _TAIL_BYTES))
                        return self.mark.encode() in file.read(_TAIL_BYTES)
        except OSError:
            pass
        return False
