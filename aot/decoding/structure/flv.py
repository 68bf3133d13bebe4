"""FLV: tags, each with a kind and its length."""

from __future__ import annotations

from typing import BinaryIO

_TAG_HEADER_BYTES = 11

# The length of the tag again, which some programs write wrongly.
_TRAILER_BYTES = 4

# Audio, video, script; the higher bits of the byte show encryption.
_KINDS = (8, 9, 18)
_KIND_BITS = 31


def flv_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the tags of an FLV file are interrupted; None: nowhere."""
    place = int.from_bytes(file.read(9)[5:], "big") + _TRAILER_BYTES
    while place < num_bytes:
        file.seek(place)
        header = file.read(4)
        if header[0] & _KIND_BITS not in _KINDS:
            return f"byte {place} does not begin a tag of FLV"
        place += _TAG_HEADER_BYTES + int.from_bytes(header[1:], "big") + _TRAILER_BYTES
    if place > num_bytes + _TRAILER_BYTES:
        return f"the file ends after {num_bytes} bytes, inside a tag that ends at byte {place}"
    return None
