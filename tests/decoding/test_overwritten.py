"""Zeros inside the data of an image are found; those that may be there are not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from aot.decoding.overwritten import hole_finder

IMAGE, INFORMATION = b"\x65", b"\x06"  # first byte of units of H.264
HEVC_IMAGE, HEVC_INFORMATION = b"\x26\x01", b"\x4e\x01"
LENGTHS = b"\x01\x64\x00\x0d\xff"  # the header of H.264 in MP4: lengths of 4 bytes
HEVC_LENGTHS = b"\x01" + bytes(20) + b"\xff"
HOLE = b"\x11" + bytes(20) + b"\x22"
FILLED = b"\x11\x22" + bytes(20)
START = b"\0\0\0\1"


def stream(codec: str, header: bytes | None) -> Any:
    return SimpleNamespace(codec_context=SimpleNamespace(name=codec, extradata=header))


def sized(unit: bytes) -> bytes:
    return len(unit).to_bytes(4, "big") + unit


@pytest.mark.parametrize(
    ("data", "is_damaged"),
    [
        (sized(IMAGE + HOLE), True),
        (sized(INFORMATION + HOLE), False),  # written without the extra bytes by some cameras
        (sized(INFORMATION + HOLE) + sized(IMAGE + HOLE), True),
        (sized(IMAGE + b"\x11\0\0\3\0\x22"), False),
        (sized(IMAGE + FILLED), False),
        (sized(IMAGE + b"\x11" + bytes(63)), False),
        (sized(IMAGE + b"\x11" + bytes(64)), True),
        (sized(IMAGE + b"\x11") + sized(INFORMATION + b"\x22"), False),
        (b"\0\0\0\xff" + IMAGE + b"\x11", False),
        (b"", False),
    ],
)
def test_units_with_lengths(data: bytes, is_damaged: bool) -> None:
    has_hole = hole_finder(stream("h264", LENGTHS))
    assert has_hole is not None
    assert has_hole(data) is is_damaged


@pytest.mark.parametrize(
    ("data", "is_damaged"),
    [
        (START + IMAGE + HOLE, True),
        (START + INFORMATION + HOLE + START + IMAGE + b"\x11", False),
        (START + INFORMATION + b"\x11" + START + IMAGE + HOLE + START + IMAGE + b"\x11", True),
        (START + IMAGE + FILLED + START + IMAGE + FILLED, False),
        (IMAGE + HOLE, False),
        (START, False),
    ],
)
def test_units_with_start_codes(data: bytes, is_damaged: bool) -> None:
    has_hole = hole_finder(stream("h264", None))
    assert has_hole is not None
    assert has_hole(data) is is_damaged


def test_hevc() -> None:
    for header, joined in ((HEVC_LENGTHS, sized), (START, lambda unit: START + unit)):
        has_hole = hole_finder(stream("hevc", header))
        assert has_hole is not None
        assert has_hole(joined(HEVC_IMAGE + HOLE))
        assert not has_hole(joined(HEVC_INFORMATION + HOLE))


@pytest.mark.parametrize("codec", ["vp8", "vp9"])
def test_vp8_and_vp9(codec: str) -> None:
    has_hole = hole_finder(stream(codec, None))
    assert has_hole is not None
    assert has_hole(b"\x11" + bytes(256) + b"\x22")
    assert not has_hole(b"\x11" + bytes(255) + b"\x22")
    assert not has_hole(b"\x11" + bytes(1000))


def test_other_codecs() -> None:
    """Three zeros are nothing unusual elsewhere, and FFmpeg has no decoder for some streams."""
    assert hole_finder(stream("mjpeg", None)) is None
    assert hole_finder(SimpleNamespace(codec_context=None)) is None
