from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aot.decoding import open_source
from aot.decoding.frame_folder import FrameFolder
from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from aot.types import Clip
from tests.decoding.coded_video import coded_frame, numbers_in, write_coded_video
from tests.decoding.test_frame_folder import write_image


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_coded_video(tmp_path / "clip.mp4", range(50))


def test_video_is_read_by_pyav(video: Path) -> None:
    with open_source(Clip("clip", video)) as source:
        assert isinstance(source, VideoFile)


def test_folder_is_read_by_opencv(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", coded_frame(0))
    with open_source(Clip("folder", tmp_path, fps=10)) as source:
        assert isinstance(source, FrameFolder)
        assert source.fps == 10


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0.4, 0.8, range(10, 20)), (None, 0.1, range(3)), (1.88, None, range(47, 50)), (-1, 9, range(50))],
)
def test_time_range(video: Path, start: float | None, end: float | None, expected: range) -> None:
    with open_source(Clip("clip", video, start_seconds=start, end_seconds=end)) as source:
        assert source.index.tolist() == list(expected)
        assert numbers_in(source.read(source.index).rgb).tolist() == list(expected)
        np.testing.assert_allclose(source.time, np.array(expected) * 0.04, atol=1e-6)
        assert source.num_source_frames == 50


def test_time_range_without_frames_is_refused(video: Path) -> None:
    with pytest.raises(DecodeError, match=r"no frame from start_seconds=5 to end_seconds=6; .* 0\.000 s to 1\.960 s"):
        open_source(Clip("clip", video, start_seconds=5, end_seconds=6))
