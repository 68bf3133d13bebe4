"""AVI: a RIFF file whose header gives the number of frames; the data of every frame are a chunk of the list `movi`."""

from __future__ import annotations

from collections import Counter
from typing import BinaryIO

_CHUNK_HEADER_BYTES = 8
_LIST_HEADER_BYTES = 12

# Lists that only group the chunks in them.
_GROUPS = (b"AVI ", b"AVIX", b"hdrl", b"strl", b"movi", b"rec ")

# A palette that changes is a chunk of the stream, but not a frame.
_PALETTE = b"pc"


def avi_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """What is missing in an AVI file: frames that its header counts, or the end of a chunk; None: nothing.

    A recording that was interrupted has no count, and may end after any chunk. Frames that were dropped while it was
    recorded are empty chunks, which count.
    """
    num_expected: list[int] = []
    num_found: Counter[int] = Counter()
    place, is_padded, problem = 0, False, None
    while place + _CHUNK_HEADER_BYTES <= num_bytes:
        file.seek(place)
        header = file.read(_LIST_HEADER_BYTES)
        name, size, kind = header[:4], int.from_bytes(header[4:8], "little"), header[8:]
        if name in (b"RIFF", b"LIST") and kind in _GROUPS:
            place += _LIST_HEADER_BYTES
            continue
        if not _is_name(name) and is_padded:
            # Some programs write no byte after a chunk of odd length.
            place, is_padded = place - 1, False
            continue
        if not _is_name(name):
            problem = f"byte {place} does not begin a chunk"
            break
        end = place + _CHUNK_HEADER_BYTES + size
        if name == b"strh":
            num_expected.append(_length_of_video(file, place))
        elif name[:2].isdigit() and name[2:] != _PALETTE and end <= num_bytes:
            num_found[int(name[:2])] += 1
        if end > num_bytes:
            problem = f"the chunk at byte {place} continues after the end of the file"
        is_padded = size % 2 == 1
        place = end + is_padded
    for stream, expected in enumerate(num_expected):
        if num_found[stream] < expected:
            where = f"; {problem}" if problem else ""
            return f"the header counts {expected} frames, but the file has {num_found[stream]}{where}"
    return None if any(num_expected) else problem


def _length_of_video(file: BinaryIO, place: int) -> int:
    """Number of frames according to the stream header at a place; 0 for other streams."""
    file.seek(place + _CHUNK_HEADER_BYTES)
    header = file.read(36)
    return int.from_bytes(header[32:36], "little") if header[:4] == b"vids" else 0


def _is_name(name: bytes) -> bool:
    return all(32 <= character < 127 for character in name)
