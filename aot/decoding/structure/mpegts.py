"""MPEG-TS: packets of constant size, each beginning with the same byte.

FFmpeg checks the numbers in the packets of a stream, which continue from 0 to 15: it misses 16 lost packets, and
anything that it skips because it is not a packet.
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

_SYNC = 0x47

# Size of a packet and of what precedes its first byte: as broadcast, with a time code (M2TS), with a checksum.
_LAYOUTS = ((188, 0), (192, 4), (204, 0))

# Packets whose first bytes show the layout.
_NUM_SHOWING = 8

_PACKETS_AT_ONCE = 50_000


def mpegts_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the packets of an MPEG-TS file are interrupted; None: nowhere, or it does not begin with one."""
    start = np.frombuffer(file.read(_NUM_SHOWING * 204), dtype=np.uint8)
    for size, offset in _LAYOUTS:
        first = start[offset : offset + _NUM_SHOWING * size : size]
        if len(first) and (first == _SYNC).all():
            return _interruption(file, num_bytes, size, offset)
    return None


def _interruption(file: BinaryIO, num_bytes: int, size: int, offset: int) -> str | None:
    file.seek(0)
    place = 0
    while data := file.read(size * _PACKETS_AT_ONCE):
        wrong = np.flatnonzero(np.frombuffer(data, dtype=np.uint8)[offset::size] != _SYNC)
        if len(wrong):
            return f"byte {place + int(wrong[0]) * size} does not begin a packet of {size} bytes"
        place += len(data)
    if num_bytes % size:
        return f"the file ends inside the packet of {size} bytes at byte {num_bytes // size * size}"
    return None
