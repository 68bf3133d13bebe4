"""Find packets of which a part was overwritten with zeros; FFmpeg decodes most of them without an error.

H.264 and HEVC put a byte 3 between two zeros and a small byte, so that three zeros in a row never occur inside the data
of an image. VP8 and VP9 code nearly without redundancy: that many zeros in a row occur inside their data by chance with
a probability of 2^-2048.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

_ZEROS = bytes(3)
_START = b"\0\0\1"
_MANY_ZEROS = bytes(256)
_FILLING = bytes(64)


def hole_finder(stream: Any) -> Callable[[bytes], bool] | None:
    """A function that finds zeros inside the data of an image in a packet of a stream; None: not for this codec."""
    context = stream.codec_context
    if context is None:
        return None
    if context.name in ("vp8", "vp9"):
        return _has_many_zeros
    if context.name not in ("h264", "hevc"):
        return None
    codec, header = context.name, context.extradata or b""
    is_image = _is_h264_image if codec == "h264" else _is_hevc_image
    # The header of MP4 and Matroska begins with a version, that of other containers with a start code.
    flags = header[4:5] if codec == "h264" else header[21:22]
    if header[:1] == b"\1" and flags:
        length_bytes = (flags[0] & 3) + 1
        return partial(_has_hole_between_lengths, is_image=is_image, length_bytes=length_bytes)
    return partial(_has_hole_between_start_codes, is_image=is_image)


def _has_many_zeros(data: bytes) -> bool:
    """Whether many zeros are followed by something else; zeros at the end may fill a packet."""
    return _MANY_ZEROS in data.rstrip(b"\0")


def _has_hole_between_lengths(data: bytes, *, is_image: Callable[[int], bool], length_bytes: int) -> bool:
    """Whether an image has zeros inside, in a packet in which each unit follows its length."""
    if _ZEROS not in data:
        return False
    place = 0
    while place + length_bytes < len(data):
        start = place + length_bytes
        place = start + int.from_bytes(data[place:start], "big")
        if is_image(data[start]) and _has_inner_zeros(data, start, place):
            return True
        # Nothing has to be filled here; few zeros are left where a program has removed start codes.
        if is_image(data[start]) and data[start:place].endswith(_FILLING):
            return True
    return False


def _has_hole_between_start_codes(data: bytes, *, is_image: Callable[[int], bool]) -> bool:
    """Whether an image has zeros inside, in a packet in which each unit follows a start code."""
    start = data.find(_START) + len(_START)
    while len(_START) <= start < len(data):
        end = data.find(_START, start)
        end = len(data) if end < 0 else end
        if is_image(data[start]) and _has_inner_zeros(data, start, end):
            return True
        start = end + len(_START)
    return False


def _has_inner_zeros(data: bytes, start: int, end: int) -> bool:
    """Whether three zeros are followed by something else than zeros: those at the end may fill a packet."""
    zeros = data.find(_ZEROS, start, end)
    return zeros >= 0 and bool(data[zeros:end].strip(b"\0"))


def _is_h264_image(header: int) -> bool:
    return 1 <= header & 31 <= 5


def _is_hevc_image(header: int) -> bool:
    return header >> 1 & 63 < 32
