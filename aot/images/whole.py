"""Whether an image file is complete, and one image of 8-bit colours: what decoders accept silently."""

from __future__ import annotations

import io
import struct

import numpy as np

_JPEG, _PNG, _RIFF = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GIF = (b"GIF87a", b"GIF89a")
_DEEP_PNM = (b"P2", b"P3", b"P5", b"P6")

_NEW_SUBFILE_TYPE = 254  # a TIFF tag, whose lowest bit marks a smaller copy of another page
_EOI, _SOS = 0xD9, 0xDA
# Markers that may occur in or between the scans of a JPEG; another one, such as the start of an image, means that the
# data ended before: tables, scans, comments, application data, DNL.
_BETWEEN_SCANS = frozenset({0xC4, 0xCC, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE}) | frozenset(range(0xE0, 0xF0))
_WITHOUT_LENGTH = frozenset({0x01}) | frozenset(range(0xD0, 0xD8))

# Below this, 16-bit values are those of a camera of 10, 12 or 14 bits, and would be shown nearly black.
_LEAST_16_BIT = 2**14


def is_complete(content: bytes) -> bool:
    """Whether an image file has its end; data may follow it, as in motion photos.

    libjpeg and libpng fill missing pixels with grey or black, and OpenCV does not pass on their warnings.
    """
    if content.startswith(_JPEG):
        return _has_end_of_jpeg(content)
    if content.startswith(_PNG):
        return any(kind == b"IEND" for kind, _ in _png_chunks(content))
    if content.startswith(_RIFF):
        return len(content) >= 8 + int.from_bytes(content[4:8], "little")
    return True


def what_else_it_is(content: bytes) -> str:
    """What an image file contains instead of one image: several pages, or an animation; empty for one image."""
    if content.startswith(_TIFF):
        num_pages = _num_pages(content)
        return f"{num_pages} pages" if num_pages > 1 else ""
    if content.startswith(_RIFF) and content[12:16] == b"VP8X":
        return "an animation" if content[20:21] and content[20] & 2 else ""
    if content.startswith(_GIF):
        return "an animation" if _num_pages(content) > 1 else ""
    if content.startswith(_PNG):
        return "an animation" if any(kind == b"acTL" for kind, _ in _png_chunks(content)) else ""
    return ""


def largest_deep_value(content: bytes) -> float | None:
    """The largest value of an image with more than 8 bits per channel; None for images of 8 bits, or not readable."""
    if not (_is_deep_png(content) or content.startswith((*_TIFF, *_DEEP_PNM))):
        return None
    import cv2

    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    return None if image is None or image.dtype == np.uint8 else float(np.nanmax(image))


def is_too_dark(value: float) -> bool:
    """Whether the largest value of a 16-bit (or floating point) image shows that its values do not use 16 bits."""
    return value < _LEAST_16_BIT


def _is_deep_png(content: bytes) -> bool:
    return content.startswith(_PNG) and content[24:25] == b"\x10"


def _has_end_of_jpeg(content: bytes) -> bool:
    """Walk the segments up to the end of the image; thumbnails inside segments have an end of their own."""
    position, has_scan = 2, False
    while position + 2 <= len(content):
        if content[position] != 0xFF:
            return False
        marker = content[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker == _EOI:
            return has_scan
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif has_scan and marker not in _BETWEEN_SCANS:
            return False
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
            if marker == _SOS:
                has_scan = True
                position = _end_of_scan(content, position)
    return False


def _end_of_scan(content: bytes, position: int) -> int:
    """Position of the first marker after the data of a scan; the length of the content if there is none."""
    while (position := content.find(b"\xff", position)) >= 0:
        following = content[position + 1 : position + 2]
        if following and following != b"\0" and not 0xD0 <= following[0] <= 0xD7:
            return position
        position += 2
    return len(content)


def _png_chunks(content: bytes) -> list[tuple[bytes, int]]:
    """(kind, position) of every complete chunk, up to the end of the image."""
    chunks, position = [], len(_PNG)
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if position + 12 + length > len(content):
            break
        chunks.append((kind, position))
        if kind == b"IEND":
            break
        position += 12 + length
    return chunks


def _num_pages(content: bytes) -> int:
    """Number of pages of a TIFF, without smaller copies of them, or of images of a GIF."""
    from PIL import Image

    num_pages = 0
    try:
        with Image.open(io.BytesIO(content)) as image:
            for page in range(getattr(image, "n_frames", 1)):
                image.seek(page)
                tags = getattr(image, "tag_v2", {})
                num_pages += not int(tags.get(_NEW_SUBFILE_TYPE, 0)) & 1
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return num_pages
    return num_pages
