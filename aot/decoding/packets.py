"""The packets of a video stream: when their frames are shown, and from which of them decoding can start.

Nothing is decoded here; packets that are known to be damaged are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding.container import repair_hint
from aot.decoding.overwritten import hole_finder
from aot.errors import DecodeError
from aot.types import BoolArray, Int64Array

# FFmpeg's filter that moves frames by as little as possible.
_DIFFERENT_TIMES = "'setpts=max(PREV_OUTPTS+1\\,PTS)'"


@dataclass(frozen=True, eq=False)
class Packets:
    """The packets of one stream in decoding order."""

    pts: Int64Array
    is_key: BoolArray
    is_shown: BoolArray
    end: int
    """End of the presentation of the last packet, in units of the stream's time base."""


@dataclass(frozen=True)
class _Row:
    """What is kept of a packet."""

    pts: int | None
    dts: int | None
    duration: int
    place: int | None
    """Its first byte in the file, if FFmpeg knows it."""
    is_key: bool
    is_shown: bool
    is_damaged: bool


def read_packets(container: Any, stream: Any, path: Path, on_packet: Callable[[Any], None]) -> Packets:
    """Read the packets of a stream.

    Args:
        container: opened, nothing of it was read yet.
        stream: of the container.
        path: of the file.
        on_packet: called with every packet in decoding order, and at the end with an empty one that flushes a decoder.
    Raises:
        DecodeError: packets are damaged or lost, or frames have no time or share one.
    """
    has_hole = hole_finder(stream)
    rows = []
    for packet in container.demux(stream):
        if packet.size:
            rows.append(_row(packet, has_hole))
        on_packet(packet)
    if not any(row.is_shown for row in rows):
        raise DecodeError(f"{path}: its video stream has no frame; expected at least one")
    _refuse_shared_times(rows, path)
    _refuse_damage(rows, float(stream.time_base), path)
    pts = [row.pts for row in rows if row.pts is not None]
    if len(pts) < len(rows):
        raise DecodeError(
            f"{path}: {len(rows) - len(pts)} of {len(rows)} frames have no presentation time; "
            f"expected one time stamp per frame: {repair_hint(path)}"
        )
    return Packets(
        pts=np.array(pts, dtype=np.int64),
        is_key=np.array([row.is_key for row in rows], dtype=np.bool_),
        is_shown=np.array([row.is_shown for row in rows], dtype=np.bool_),
        end=max(time + row.duration for time, row in zip(pts, rows)),
    )


def _row(packet: Any, has_hole: Callable[[bytes], bool] | None) -> _Row:
    return _Row(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        place=packet.pos,
        is_key=packet.is_keyframe,
        is_shown=not packet.is_discard,
        is_damaged=packet.is_corrupt or (has_hole is not None and has_hole(bytes(packet))),
    )


def _refuse_shared_times(rows: list[_Row], path: Path) -> None:
    times = [row.pts for row in rows if row.is_shown and row.pts is not None]
    num_shared = len(times) - len(set(times))
    if num_shared:
        raise DecodeError(
            f"{path}: {num_shared} of {len(rows)} frames share the presentation time of another frame; "
            f"expected one time stamp per frame: {repair_hint(path, _DIFFERENT_TIMES)}"
        )


def _refuse_damage(rows: list[_Row], time_base: float, path: Path) -> None:
    """Refuse a stream of which packets are damaged, or which begins with a frame that needs others before it."""
    damaged = [row for row in rows if row.is_damaged]
    if damaged == rows[-1:]:
        raise DecodeError(
            f"{path}: its last packet ({_position(rows[-1], time_base)}) is damaged or incomplete: the file is "
            f"truncated; copy it again, or {repair_hint(path)}"
        )
    if damaged:
        raise DecodeError(
            f"{path}: {len(damaged)} of {len(rows)} packets are damaged, or parts of them are lost, the first "
            f"{_position(damaged[0], time_base)}: copy or record the file again, or {repair_hint(path)}"
        )
    if not rows[0].is_key:
        raise DecodeError(
            f"{path}: its first packet ({_position(rows[0], time_base)}) is not a key frame: the beginning is missing; "
            f"copy or record the file again, or {repair_hint(path)}"
        )


def _position(row: _Row, time_base: float) -> str:
    time = row.pts if row.pts is not None else row.dts
    at_time = "at an unknown time" if time is None else f"at {time * time_base:.3f} s"
    return at_time if row.place is None else f"{at_time}, byte {row.place}"


def clean_keys(packets: Packets) -> Int64Array:
    """Key packets from which decoding can start.

    All packets decoded before one of them are displayed before it, and all packets decoded after it (at least one) are
    displayed after it.

    decoded  I0 P3 b1 b2 I4 P7 b5 b6 I10 P13 b8 b9 …
    clean    #           #           - (an open group: b8 and b9 need P7 and I10)
    """
    before = np.maximum.accumulate(np.concatenate([[np.iinfo(np.int64).min], packets.pts[:-1]]))
    after = np.minimum.accumulate(np.concatenate([packets.pts[1:], [packets.pts[-1]]])[::-1])[::-1]
    clean = packets.is_key & packets.is_shown & (before < packets.pts) & (packets.pts < after)
    return np.flatnonzero(clean).astype(np.int64)
