"""The packets of a video stream: when their frames are shown, and from which of them decoding can start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aot.decoding.container import repair_hint
from aot.errors import DecodeError
from aot.types import BoolArray, Int64Array


@dataclass(frozen=True, eq=False)
class Packets:
    """The packets of one stream in decoding order."""

    pts: Int64Array
    is_key: BoolArray
    is_shown: BoolArray
    end: int
    """End of the presentation of the last packet, in units of the stream's time base."""


def read_packets(container: Any, stream: Any, path: Path) -> Packets:
    rows = [
        (packet.pts, packet.is_keyframe, not packet.is_discard, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size  # the last packet is empty: it flushes the decoder
    ]
    shown = [pts for pts, _, is_shown, _ in rows if is_shown]
    if not shown:
        raise DecodeError(f"{path}: its video stream has no frame; expected at least one")
    unclear = sum(pts is None for pts, *_ in rows) or len(shown) - len(set(shown))
    if unclear:
        raise DecodeError(
            f"{path}: {unclear} of {len(rows)} frames have no unique presentation time; "
            f"expected one time stamp per frame: {repair_hint(path)}"
        )
    return Packets(
        pts=np.array([pts for pts, *_ in rows], dtype=np.int64),
        is_key=np.array([is_key for _, is_key, *_ in rows], dtype=np.bool_),
        is_shown=np.array([is_shown for _, _, is_shown, _ in rows], dtype=np.bool_),
        end=max(pts + duration for pts, _, _, duration in rows),
    )


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
