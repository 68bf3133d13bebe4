"""Refuse files of which a part is missing; they must not be read as a shorter video."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import av

from aot.decoding.container import repair_hint
from aot.decoding.packets import Packets
from aot.decoding.structure import structure_problem
from aot.errors import DecodeError
from aot.system.os_errors import os_problem

# Durations in headers are rounded, and often do not include the duration of the last frame.
_MAX_MISSING_SECONDS = 1.0


def refuse_interrupted(container: Any, path: Path) -> None:
    """Refuse a file whose parts do not follow each other up to the end; no packet is read.

    Raises:
        DecodeError: something is missing or damaged, or the file cannot be read.
    """
    try:
        problem = structure_problem(path, container.format.name)
    except OSError as exc:
        raise DecodeError(f"{path} cannot be read as a video: {os_problem(exc)}") from exc
    if problem is not None:
        raise DecodeError(f"{path}: {problem}: the file is damaged or truncated; copy it again, or {repair_hint(path)}")


def refuse_incomplete(container: Any, stream: Any, packets: Packets, path: Path) -> None:
    """Refuse a file whose end is missing, such as an incomplete copy.

    For other containers than these, FFmpeg estimates the duration. A file that was written as a live stream has no
    duration in its header.

    Raises:
        DecodeError: there are fewer packets than the header lists, or they end earlier.
    """
    num_listed = _num_listed(container, stream)
    expected, found = _seconds(container, stream), float(packets.end * stream.time_base)
    if expected is not None and found < expected - _MAX_MISSING_SECONDS:
        problem = f"the header gives a duration of {expected:.3f} s, but the frames end after {found:.3f} s"
    elif len(packets.pts) < num_listed:
        problem = f"the header lists {num_listed} frames, but the file has {len(packets.pts)}"
    else:
        return
    raise DecodeError(f"{path}: {problem}: the file is truncated; copy it again, or {repair_hint(path)}")


def _num_listed(container: Any, stream: Any) -> int:
    """Number of packets that the header of a file lists; 0: unknown."""
    if "mov" in container.format.name:
        # Not the number of frames of the stream: packets that are not shown may be left out (edit lists).
        return len(stream.index_entries)
    # MXF counts time in frames.
    is_counted = container.format.name == "mxf" and stream.time_base * (stream.average_rate or 0) == 1
    return int(stream.duration or 0) if is_counted else 0


def _seconds(container: Any, stream: Any) -> float | None:
    """End of the stream in s according to the header; None: unknown."""
    if "mov" in container.format.name and stream.duration:
        return float(stream.duration * stream.time_base)
    return _matroska_end(container, stream) if "matroska" in container.format.name else None


def _matroska_end(container: Any, stream: Any) -> float | None:
    """End of a stream in s: from its DURATION tag, or the file's duration if it has only one stream; None: unknown."""
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / av.time_base if container.duration and len(container.streams) == 1 else None
