"""GIF: blocks, each with an introducer and the lengths of its parts, up to the trailer."""

from __future__ import annotations

from typing import BinaryIO

_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B

# Kinds of extensions: text, time and transparency of the next image, comment, application.
_LABELS = (b"\x01", b"\xf9", b"\xfe", b"\xff")

# Bits per pixel with which the coding of an image begins.
_CODE_BITS = tuple(bytes([number]) for number in range(1, 9))


def gif_problem(file: BinaryIO, num_bytes: int) -> str | None:
    """Where the blocks of a GIF file are interrupted; None: they continue up to the trailer."""
    _skip_colours(file, file.read(13)[10:11])
    while introducer := file.read(1):
        place = file.tell() - 1
        if introducer[0] == _TRAILER:
            return None
        is_valid = False
        if introducer[0] == _EXTENSION:
            is_valid = file.read(1) in _LABELS
        elif introducer[0] == _IMAGE:
            _skip_colours(file, file.read(9)[8:9])
            is_valid = file.read(1) in _CODE_BITS
        if not is_valid:
            return f"byte {place} does not begin a block"
        _skip_parts(file)
    return f"the file ends after {num_bytes} bytes without the trailer of GIF files"


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    """Skip the colour table that the flags before it announce."""
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)


def _skip_parts(file: BinaryIO) -> None:
    """Skip the parts of a block: each begins with its length, which is 0 after the last one."""
    while (length := file.read(1)) and length[0]:
        file.seek(length[0], 1)
