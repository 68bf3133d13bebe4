"""Refuse files of which a part is missing; they must not be read as a shorter video."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av

from aot.decoding.container import repair_hint
from aot.decoding.packets import Packets
from aot.errors import DecodeError

# Durations in headers are rounded, and often do not include the duration of the last frame.
_MAX_MISSING_SECONDS = 1.0


def refuse_incomplete(container: Any, stream: Any, packets: Packets, path: Path) -> None:
    """Refuse a file whose end is missing, such as an incomplete copy; it must not be read as a shorter video.

    Only MP4 and Matroska files are checked: for other containers FFmpeg estimates the duration. A file that was
    written as a live stream has no duration in its header.
    """
    expected, found = None, float((packets.end - packets.pts.min()) * stream.time_base)
    if "mov" in container.format.name and stream.duration:
        expected = float(stream.duration * stream.time_base)
    elif "matroska" in container.format.name:
        expected, found = _matroska_end(container, stream), float(packets.end * stream.time_base)
    if expected is not None and found < expected - _MAX_MISSING_SECONDS:
        raise DecodeError(
            f"{path}: the header gives a duration of {expected:.3f} s, but the frames end after {found:.3f} s: the "
            f"file is truncated; copy it again, or {repair_hint(path)}"
        )


def _matroska_end(container: Any, stream: Any) -> float | None:
    """End of a stream in s: from its DURATION tag, or the file's duration if it has only one stream; None: unknown."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
