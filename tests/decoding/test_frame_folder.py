from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from aot.decoding import first_frame as first_frame_of_clip
from aot.decoding import open_source
from aot.decoding.base import FrameSource
from aot.decoding.frame_folder import FrameFolder, first_frame
from aot.errors import DecodeError
from aot.images.whole import is_complete
from aot.types import Clip, UInt8Array
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


def test_masks_beside_frames_are_refused_and_can_be_left_out(folder: Path) -> None:
    write_image(folder / "frame_4.jpg", coded_frame(4))
    with pytest.raises(
        DecodeError, match=r"2 patterns: frame_\*\.png \(12 images\), frame_\*\.jpg \(1 image\); expected"
    ):
        FrameFolder(folder)
    with FrameFolder(folder, pattern="frame_*.jpg") as source:
        assert numbers_in(source.read([0]).rgb).tolist() == [4]
    assert numbers_in(first_frame(folder, "frame_*.jpg")[None]).tolist() == [4]


def trailer(content: bytes, kind: str) -> bytes:
    """An image file followed by data: zeros, or the end of another image, as in motion photos."""
    return content + (bytes(8192) if kind == "zeros" else b"\xff\xd8" + bytes(60_000) + b"\xff\xd9IEND\xaeB`\x82")


@pytest.mark.parametrize("kind", ["zeros", "video"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_data_behind_the_end_of_an_image_is_ignored(tmp_path: Path, suffix: str, kind: str) -> None:
    file = write_image(tmp_path / f"7{suffix}", coded_frame(7))
    file.write_bytes(trailer(file.read_bytes(), kind))
    assert numbers_in(FrameFolder(tmp_path).read([0]).rgb).tolist() == [7]


@pytest.mark.parametrize("kind", ["zeros", "video"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_truncated_image_with_data_behind_it_is_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    file = write_image(tmp_path / f"7{suffix}", coded_frame(7))
    file.write_bytes(trailer(file.read_bytes()[:-200], kind))
    with pytest.raises(DecodeError, match=r"cannot be decoded as an image; expected a complete file"):
        FrameFolder(tmp_path)


def test_jpegs_of_other_encoders_are_complete(tmp_path: Path) -> None:
    """Several scans, restart markers, comments, and a thumbnail that has an end of its own."""
    image = Image.fromarray(coded_frame(3))
    thumbnail = io.BytesIO()
    image.resize((16, 12)).save(thumbnail, "JPEG")
    image.save(tmp_path / "0.jpg", progressive=True, quality=95, comment=b"camera 2")
    image.save(tmp_path / "1.jpg", restart_marker_blocks=1, quality=95)
    image.save(tmp_path / "2.jpg", exif=b"Exif\0\0" + thumbnail.getvalue(), quality=95)
    assert numbers_in(FrameFolder(tmp_path).read([0, 1, 2]).rgb).tolist() == [3, 3, 3]
    cut = (tmp_path / "2.jpg").read_bytes()
    (tmp_path / "2.jpg").write_bytes(cut[: cut.rindex(b"\xff\xda") + 40])
    with pytest.raises(DecodeError, match=r"2\.jpg .* cannot be decoded"):
        FrameFolder(tmp_path).read([2])


def save_pages(path: Path, **options: object) -> Path:
    first, second = (Image.fromarray(coded_frame(number)) for number in (1, 2))
    first.save(path, save_all=True, append_images=[second], **options)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("0.tif", {}, "2 pages"),
        ("0.webp", {}, "an animation"),
        ("0.png", {}, "an animation"),
        ("1.png", {"format": "GIF"}, "an animation"),
    ],
)
def test_file_with_several_images_is_refused(tmp_path: Path, name: str, options: dict[str, str], found: str) -> None:
    save_pages(tmp_path / name, **options)
    with pytest.raises(DecodeError, match=rf"{name}: contains {found}; expected one image per file"):
        FrameFolder(tmp_path)


def test_stack_of_images_is_no_video(tmp_path: Path) -> None:
    stack = save_pages(tmp_path / "stack.tif")
    with pytest.raises(DecodeError, match=r"stack\.tif: contains 2 pages; expected a video file, or a folder"):
        open_source(Clip("stack", stack))
    with pytest.raises(DecodeError, match=r"stack\.tif: contains 2 pages; expected a video file, or a folder"):
        first_frame_of_clip(Clip("stack", stack))


def test_smaller_copy_in_a_tiff_is_no_page(tmp_path: Path) -> None:
    image = Image.fromarray(coded_frame(5))
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "0.tif"), new=True) as pages:
        image.save(pages, format="TIFF")
        pages.newFrame()
        image.resize((16, 12)).save(pages, format="TIFF", tiffinfo={254: 1})
    assert numbers_in(FrameFolder(tmp_path).read([0]).rgb).tolist() == [5]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_data_of_12_bits_in_16_is_refused(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}{suffix}"), coded_frame(number).astype(np.uint16) * 16)
    with pytest.raises(
        DecodeError, match=r"more than 8 bits per channel, and the largest value .* is 40\d\d; expected"
    ):
        FrameFolder(tmp_path)


def test_images_of_16_bits_are_read(tmp_path: Path) -> None:
    """The first is black, as where a video fades in."""
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((48, 64, 3), np.uint16))
    for number in range(1, 4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), coded_frame(number)[..., ::-1].astype(np.uint16) * 257)
    assert numbers_in(FrameFolder(tmp_path).read([1, 2, 3]).rgb).tolist() == [1, 2, 3]


def test_marker_that_no_scan_contains_ends_a_truncated_jpeg(tmp_path: Path) -> None:
    """The start of another image, whose data leads to an end."""
    file = write_image(tmp_path / "7.jpg", coded_frame(7))
    content = file.read_bytes()
    assert is_complete(content)
    assert not is_complete(content[:-20] + b"\0\xff\xd8\x00\x04\x00\x00\xff\xd9")
