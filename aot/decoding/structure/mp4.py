"""MP4 and QuickTime: boxes, each with its length and a name of four characters.

FFmpeg reads the beginning of a table of frames that is cut, and of a file in fragments only those up to a damaged one.
"""

from __future__ import annotations

from typing import BinaryIO

_FRAGMENT = b"moof"


def mp4_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the boxes of an MP4 file are interrupted; None: nowhere.

    Other data may follow the last box, except in a file in fragments, where it could have been one.
    """
    place, has_fragments = 0, False
    while place + 8 <= num_bytes:
        file.seek(place)
        header = file.read(16)
        size, name = int.from_bytes(header[:4], "big"), header[4:8]
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if not _is_name(name) or size == 1 or (0 < size < 8):
            return f"byte {place} does not begin a box of MP4" if has_fragments else None
        has_fragments |= name == _FRAGMENT
        # A length of 0 stands for the rest of the file.
        place = place + size if size else num_bytes
        if place > num_bytes:
            return f"the file ends after {num_bytes} bytes, inside a box that ends at byte {place}"
    return None


def _is_name(name: bytes) -> bool:
    return all(32 <= character < 127 or character == 0xA9 for character in name)
