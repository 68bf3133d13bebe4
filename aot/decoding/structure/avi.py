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
    place, problem = 0, None
    while place + _CHUNK_HEADER_BYTES <= num_bytes:
        file.seek(place)
        header = file.read(_LIST_HEADER_BYTES)
        name, size, kind = header[:4], int.from_bytes(header[4:8], "little"), header[8:]
        if name in (b"RIFF", b"LIST") and kind in _GROUPS:
            place += _LIST_HEADER_BYTES
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
        place = end + _num_padding_bytes(file, end) if size % 2 else end
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


def _num_padding_bytes(file: BinaryIO, end: int) -> int:
    """1 behind a chunk of odd length; some programs write no such byte, so that the next name begins there."""
    file.seek(end)
    name = file.read(4)
    return 0 if len(name) == 4 and _is_name(name) else 1


def _is_name(name: bytes) -> bool:
    return all(32 <= character < 127 for character in name)
