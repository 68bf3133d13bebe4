"""ASF (WMV): objects, each with an identifier and its length; one of them contains packets of constant size."""

from __future__ import annotations

from typing import BinaryIO

_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

_OBJECT_HEADER_BYTES = 24
_DATA_HEADER_BYTES = 50

# How packets begin: bytes for the correction of errors, which programs write though nothing uses them.
_START = 0x82


def asf_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the packets of an ASF file are interrupted; None: nowhere, or they have no mark at their beginning."""
    header = file.read(_OBJECT_HEADER_BYTES)
    end = int.from_bytes(header[16:24], "little")
    if end > num_bytes:
        return f"the file ends after {num_bytes} bytes, inside the header that ends at byte {end}"
    header += file.read(max(0, end - _OBJECT_HEADER_BYTES))
    properties = header.find(_FILE_PROPERTIES)
    size = int.from_bytes(header[properties + 92 : properties + 96], "little")
    data = file.read(_DATA_HEADER_BYTES)
    if properties < 0 or not size or not data.startswith(_DATA):
        return None
    num_packets = int.from_bytes(data[40:48], "little")
    start = len(header) + _DATA_HEADER_BYTES
    # A stream that is sent live has no number of packets.
    if num_packets and start + num_packets * size > num_bytes:
        return f"the file has {num_bytes} bytes, but its header lists {num_packets} packets of {size} bytes"
    is_marked = _first_byte(file, start) == _START
    for number in range(num_packets if is_marked else 0):
        if _first_byte(file, start + number * size) != _START:
            return f"byte {start + number * size} does not begin a packet of {size} bytes"
    return None


def _first_byte(file: BinaryIO, place: int) -> int:
    file.seek(place)
    return int.from_bytes(file.read(1), "little")
