"""How overlays look. What is drawn is noted in the video, so that another look is drawn anew."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import BaseModel, ConfigDict

_BOX_HEAD_BYTES = 8
_TAIL_BYTES = 512
_MARK = "aot overlay "


class OverlayStyle(BaseModel):
    """The options of `overlay.*`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    colour: Literal["start", "object"] = "start"
    """Of points: the rainbow by the height at which they start, as CoTracker's demo has it; or their object's."""
    trail: Annotated[int, Ge(0), Le(255)] = 10
    """Rows until a trail has faded; 0 draws none."""
    tint: Annotated[float, Ge(0), Le(1)] = 0.45
    """Share of an object's colour in the pixels of its mask."""
    outline: bool = True
    """A line round each mask."""
    label: bool = True
    """Frame number and time in the corner."""
    side_by_side: bool = False
    """The source on the left, the drawing on the right."""

    @property
    def mark(self) -> str:
        """What a video drawn so says of itself."""
        return _MARK + hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def is_that_of(self, video: Path) -> bool:
        """Whether a video was drawn so; one that is not there was not.

        Two short reads: the comment stands at the end of the index, which comes before the pictures.
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
