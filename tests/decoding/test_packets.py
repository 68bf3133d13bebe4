"""What is kept and refused of a stream's packets; complete files are in test_made_videos.py and test_damage.py."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aot.decoding.packets import Packets, read_packets
from aot.errors import DecodeError

STREAM = SimpleNamespace(codec_context=None, time_base=Fraction(1, 25))


def packet(pts: int, **changes: Any) -> SimpleNamespace:
    fields = {
        "pts": pts, "dts": pts, "duration": 1, "pos": None, "size": 10, "is_keyframe": True, "is_discard": False,
        "is_corrupt": False,
    }  # fmt: skip
    return SimpleNamespace(**fields | changes)


def read(*packets: SimpleNamespace) -> Packets:
    return read_packets(SimpleNamespace(demux=lambda stream: packets), STREAM, Path("a.mp4"), lambda packet: None)


def test_packet_that_is_not_shown_may_share_a_time() -> None:
    packets = read(packet(0, is_discard=True), packet(0), packet(1))
    assert packets.pts.tolist() == [0, 0, 1]
    assert packets.is_shown.tolist() == [False, True, True]
    assert packets.end == 2
    with pytest.raises(DecodeError, match=r"a\.mp4: 1 of 3 frames share the presentation time of another frame"):
        read(packet(0), packet(0), packet(1))
