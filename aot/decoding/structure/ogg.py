"""Ogg: numbered pages with checksums; the last page of a stream is marked."""

from __future__ import annotations

import zlib
from typing import BinaryIO

_CAPTURE = b"OggS"
_HEADER_BYTES = 27
_FIRST, _LAST = 2, 4

# How the first page of a video begins: Theora, VP8, Dirac, OGM.
_VIDEOS = (b"\x80theora", b"OVP80", b"BBCD", b"\x01video")

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def ogg_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """What is missing or damaged in the videos of an Ogg file; None: nothing, or it has no video of a known kind."""
    next_page: dict[int, int] = {}
    open_videos: set[int] = set()
    has_video, place = False, 0
    while place < num_bytes:
        header, content = _read_page(file, place)
        if not header.startswith(_CAPTURE):
            # Other data may follow the last page.
            return f"byte {place} does not begin a page" if open_videos else None
        if len(header) < _HEADER_BYTES or _checksum(header, content) != int.from_bytes(header[22:26], "little"):
            return f"the page at byte {place} is damaged: its checksum is another one"
        flags, stream, number = header[5], int.from_bytes(header[14:18], "little"), _number(header)
        if flags & _FIRST and content.startswith(_VIDEOS):
            has_video = True
            open_videos.add(stream)
        elif stream in next_page and number != next_page[stream]:
            return f"pages are missing before byte {place}: page {number} follows page {next_page[stream] - 1}"
        next_page[stream] = number + 1
        if flags & _LAST:
            open_videos.discard(stream)
        place += len(header) + len(content)
    if has_video and open_videos:
        return f"the file ends after {num_bytes} bytes without the last page of the video"
    return None


def _number(header: bytes) -> int:
    return int.from_bytes(header[18:22], "little")


def _read_page(file: BinaryIO, place: int) -> tuple[bytes, bytes]:
    """Header, with the table of lengths, and content of a page."""
    file.seek(place)
    header = file.read(_HEADER_BYTES)
    table = file.read(header[26]) if len(header) == _HEADER_BYTES else b""
    return header + table, file.read(sum(table))


def _checksum(header: bytes, content: bytes) -> int:
    """CRC-32 with the polynomial of zlib, but from the highest bit on, without inversions."""
    page = header[:22] + bytes(4) + header[26:] + content
    mirrored = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)
