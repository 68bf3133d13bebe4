"""What a header tells about the length of a stream; complete files are in test_made_videos.py and test_damage.py."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from aot.decoding.completeness import refuse_incomplete
from aot.decoding.packets import Packets
from aot.errors import DecodeError

MXF = SimpleNamespace(format=SimpleNamespace(name="mxf"))
PACKETS = Packets(np.arange(39), np.ones(39, dtype=np.bool_), np.ones(39, dtype=np.bool_), end=39)


def stream(time_base: Fraction, average_rate: Fraction | None) -> SimpleNamespace:
    return SimpleNamespace(duration=40, time_base=time_base, average_rate=average_rate)


def test_mxf_counts_frames_where_its_unit_of_time_is_a_frame() -> None:
    with pytest.raises(DecodeError, match=r"a\.mxf: the header lists 40 frames, but the file has 39"):
        refuse_incomplete(MXF, stream(Fraction(1, 25), Fraction(25)), PACKETS, Path("a.mxf"))


@pytest.mark.parametrize("time_base", [Fraction(1, 25), Fraction(1)])
@pytest.mark.parametrize("average_rate", [None, Fraction(50)])
def test_another_unit_of_time_counts_no_frames(time_base: Fraction, average_rate: Fraction | None) -> None:
    refuse_incomplete(MXF, stream(time_base, average_rate), PACKETS, Path("a.mxf"))
