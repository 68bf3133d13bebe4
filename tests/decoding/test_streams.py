"""Which video stream is chosen by its header; streams in files are in test_made_videos.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from av.stream import Disposition

from aot.decoding.streams import chosen_stream

UNKNOWN = SimpleNamespace(disposition=Disposition(0), codec_context=None)


@pytest.mark.parametrize("size", [(0, 0), (64, 48)])
def test_stream_of_unknown_codec_is_not_preferred(size: tuple[int, int]) -> None:
    """It has no width and height in PyAV; a known stream whose header has none comes first if it is the first."""
    known = SimpleNamespace(width=size[0], height=size[1], disposition=Disposition(0), codec_context=SimpleNamespace())
    streams = [known, UNKNOWN] if size == (0, 0) else [UNKNOWN, known]
    assert chosen_stream(SimpleNamespace(streams=SimpleNamespace(video=streams)), Path("a.mkv"), None) is known
