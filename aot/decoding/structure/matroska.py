"""Matroska and WebM: nested elements, each with an identifier and a length; clusters contain the data of the frames."""

from __future__ import annotations

import zlib
from typing import BinaryIO

_HEADER, _SEGMENT, _CLUSTER, _CHECKSUM = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xbf"

# Elements of a segment and of a cluster: seek head, information, tracks, index, chapters, tags, attachments; time,
# position, previous size, blocks (simple, group, encrypted), silent tracks; filling.
_KNOWN = {
    bytes.fromhex(name)
    for name in (
        "1a45dfa3 114d9b74 1549a966 1654ae6b 1c53bb6b 1043a770 1254c367 1941a469 "
        "e7 a7 ab a3 a0 af 5854 ec bf"
    ).split()
}  # fmt: skip

_BYTES_AT_ONCE = 2**20


def matroska_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the elements of a Matroska file are interrupted, or differ from their checksum; None: nowhere.

    The length of segments and clusters may be unknown (live streams): these end where another one begins.
    """
    place, end = 0, num_bytes
    while place < end:
        name, length, start = _element(file, place)
        if name == _SEGMENT:
            end = num_bytes if length is None else start + length
            if end > num_bytes:
                return f"the file has {num_bytes} bytes, but {end} according to its header"
            place = start
        elif name == _CLUSTER:
            if length is not None and start + length > num_bytes:
                return f"the file ends after {num_bytes} bytes inside a cluster"
            if length is not None and not _has_valid_checksum(file, start, length):
                return f"the cluster at byte {place} is damaged: its checksum is another one"
            place = start
        elif name not in _KNOWN or length is None:
            return f"byte {place} does not begin an element of Matroska"
        else:
            place = start + length
            if place > num_bytes:
                return f"the file ends after {num_bytes} bytes inside an element"
    return None


def _element(file: BinaryIO, place: int) -> tuple[bytes, int | None, int]:
    """Identifier, length (None: unknown) and start of the content of an element; no identifier: there is none."""
    file.seek(place)
    header = file.read(12)
    name_bytes = _num_bytes(header[:1])
    length_bytes = _num_bytes(header[name_bytes : name_bytes + 1])
    end = name_bytes + length_bytes
    if not name_bytes or name_bytes > 4 or not length_bytes or end > len(header):
        return b"", None, place
    ones = 2 ** (7 * length_bytes) - 1
    length = int.from_bytes(header[name_bytes:end], "big") & ones
    return header[:name_bytes], None if length == ones else length, place + end


def _num_bytes(first: bytes) -> int:
    """Length of a number, which its first byte shows by the zeros that it begins with; 0: it is not a number."""
    return 9 - first[0].bit_length() if first and first[0] else 0


def _has_valid_checksum(file: BinaryIO, start: int, length: int) -> bool:
    """Whether the content of a cluster has the CRC-32 that it begins with, if it does."""
    name, size, content = _element(file, start)
    if name != _CHECKSUM or size != 4:
        return True
    file.seek(content)
    expected = int.from_bytes(file.read(4), "little")
    left, found = start + length - content - 4, 0
    while left > 0 and (data := file.read(min(left, _BYTES_AT_ONCE))):
        found, left = zlib.crc32(data, found), left - len(data)
    return found == expected
