from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from aot.decoding.base import FrameSource
from aot.decoding.frame_folder import FrameFolder
from aot.errors import DecodeError
from aot.types import UInt8Array
from tests.decoding.coded_video import coded_frame, numbers_in
from tests.decoding.contract import FPS, NUM_FRAMES, FrameSourceContract


def write_image(path: Path, rgb: UInt8Array) -> Path:
    cv2.imwrite(str(path), rgb[:, :, ::-1])
    return path


class TestContract(FrameSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> FrameSource:
        for number in range(NUM_FRAMES):
            write_image(tmp_path / f"{number}.png", coded_frame(number))
        return FrameFolder(tmp_path, fps=FPS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames, named without leading zeros, and another file."""
    for number in range(12):
        write_image(tmp_path / f"frame_{number}.png", coded_frame(number))
    (tmp_path / "notes.txt").write_text("from camera 2")
    return tmp_path


def test_frames_are_ordered_by_number(folder: Path) -> None:
    with FrameFolder(folder, fps=10) as source:
        assert numbers_in(source.read(source.index).rgb).tolist() == list(range(12))
        assert numbers_in(source.read([9, 2, 9]).rgb).tolist() == [9, 2, 9]
        np.testing.assert_allclose(source.time, np.arange(12) / 10)
        assert (source.width, source.height, source.num_source_frames) == (64, 48, 12)


def test_colours_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), dtype=np.uint8)
    red[..., 0] = 255
    write_image(tmp_path / "0.png", red)
    np.testing.assert_array_equal(FrameFolder(tmp_path).read([0]).rgb[0], red)


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(DecodeError, match="contains no image; expected one file per frame"):
        FrameFolder(tmp_path)


def test_mixed_sizes_are_refused(folder: Path) -> None:
    write_image(folder / "frame_5.png", coded_frame(5, 32, 24))
    with pytest.raises(DecodeError, match=r"frame_5\.png: got 32x24 px, expected 64x48 px as in frame_0\.png"):
        FrameFolder(folder).read([4, 5])


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    write_image(tmp_path / f"0{suffix}", noise)
    file = write_image(tmp_path / f"1{suffix}", noise)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(DecodeError, match=rf"1\{suffix} \(\d+ bytes\): cannot be decoded as an image"):
        FrameFolder(tmp_path).read([0, 1])


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_unreadable_image_is_refused(folder: Path, content: bytes) -> None:
    (folder / "frame_3.png").write_bytes(content)
    with pytest.raises(DecodeError, match=r"frame_3\.png \(\d+ bytes\): cannot be decoded"):
        FrameFolder(folder).read([3])


def test_masks_beside_frames_are_refused(folder: Path) -> None:
    write_image(folder / "frame_4.jpg", coded_frame(4))
    with pytest.raises(DecodeError, match=r"frame_4\.\w+ and frame_4\.\w+ have the same frame number"):
        FrameFolder(folder)
