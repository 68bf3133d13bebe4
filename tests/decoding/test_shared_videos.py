"""Unusual and real videos: all their frames are read, or an error gives the reason."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from aot.decoding import open_source
from aot.errors import DecodeError
from aot.types import Clip, Float64Array, UInt8Array
from tests.shared_data import AWKWARD, CLIPS, DAVIS_CLIPS, awkward_video, needs_shared_data

pytestmark = needs_shared_data

READABLE = {
    "-video-with-dash-.mp4": (5, 1, 1),
    "animated.gif": (4, 64, 48),
    "av1_video.mkv": (125, 640, 360),
    "bikes.mp4": (250, 640, 272),
    "bt2020_10bit.mp4": (60, 320, 240),
    "bt709_full_range.mp4": (30, 1280, 720),
    "cockatoo.mp4": (280, 1280, 720),
    "discard_first_keyframe.mp4": (25, 64, 64),
    "h264_10bits.mp4": (30, 200, 200),
    "h265_10bits.mp4": (30, 200, 200),
    "h265_video.mp4": (10, 128, 128),
    "no_duration.webm": (74, 1280, 720),
    "nasa_13013.mp4": (390, 480, 270),
    "nasa_13013_hdr.mp4": (325, 320, 180),
    "nasa_13013_rotated.mp4": (17, 270, 480),
    "realshort.mp4": (36, 320, 240),
    "sar_4_3.mp4": (87, 368, 480),
    "test_non_zero_start.mp4": (12, 200, 112),
    "testsrc2_12bit_hdr.mp4": (60, 320, 180),
    "testsrc2_av1_10bit.mp4": (25, 320, 240),
    "testsrc2_mpeg4.avi": (30, 1280, 720),
    "testsrc2_mpeg4.mp4": (1, 64, 64),
    "testsrc2_odd_height_and_width_444.mp4": (25, 321, 241),
    "testsrc2_odd_height_and_width_mpeg2.mp4": (10, 121, 81),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, 321, 241),
    "testsrc2_vp8.webm": (30, 1280, 720),
    "testsrc2_vp9.webm": (30, 1280, 720),
    "transparent.webm": (150, 200, 200),
    "unordered.mov": (4, 50, 50),
    "video_0.mov": (3, 568, 320),
    "video_180.mov": (3, 568, 320),
    "video_270.mov": (3, 320, 568),
    "video_90.mov": (3, 320, 568),
    "video_with_failing_audio.mp4": (280, 640, 360),
}

BROKEN = {
    "audio_only.mp4": "no video stream, only audio",
    "corrupted.mp4": r"frame 28 \(2\.800 s\) cannot be decoded.*expected all 50 frames.*ffmpeg -i",
    "not_a_video.mp4": r"\(860 bytes\): cannot be read as a video: it is not a video, or it is damaged",
    "size_changes.ts": "10 of 20 frames share the presentation time of another frame",
    "truncated_faststart.mp4": "the file ends after 152057 bytes, inside a box that ends at byte 253429",
    "truncated_no_moov.mp4": "cannot be read as a video: it is not a video, or it is damaged",
    "zero_bytes.mp4": r"\(0 bytes\): cannot be read as a video",
}

Int16Array = npt.NDArray[np.int16]

# Long and large: reading each takes seconds.
SLOW = {"cockatoo.mp4", "nasa_13013.mp4", "nasa_13013_hdr.mp4"}

REAL = {"book": 235, "cat": 87, "clothes": 314, "pillow": 147, "shoes": 202, "teapot": 110, "teddy": 141}
LONG = {"book", "clothes", "shoes"}
DAVIS = {"bear": 82, "bmx-trees": 80, "rollerblade": 35, "surf": 55}

# Mean difference between two conversions of the same frame to RGB (matrix and range may be guessed differently).
TOLERANCE = 6.0


def test_every_unusual_video_is_listed() -> None:
    assert {path.name for path in AWKWARD.glob("*/*")} == READABLE.keys() | BROKEN.keys()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in READABLE])
def test_readable_video(name: str) -> None:
    num_frames, width, height = READABLE[name]
    check_against_pyav(awkward_video(name), num_frames, (width, height))


@pytest.mark.parametrize("name", BROKEN)
def test_broken_video_is_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(DecodeError, match=BROKEN[name]),
        open_source(Clip("broken", awkward_video(name))) as source,
    ):
        for _ in source.blocks():
            pass
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] if n in LONG else []) for n in REAL])
def test_real_clip(name: str) -> None:
    """Quick counterpart of book, clothes and shoes: teapot, a shorter recording of the same camera."""
    check_against_pyav(CLIPS / name / "clip.mp4", REAL[name])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "bmx-trees")) for n in DAVIS])
def test_davis_clip(name: str) -> None:
    check_against_pyav(DAVIS_CLIPS / name / "clip.mp4", DAVIS[name], (854, 480))


def check_against_pyav(path: Path, num_frames: int, size: tuple[int, int] | None = None) -> None:
    """Of all frames that PyAV decodes, the i-th is most similar to frame i: forwards, backwards, in random order."""
    time, expected = reference(path)
    with open_source(Clip("clip", path)) as source:
        assert source.num_source_frames == len(source.index) == len(time) == num_frames
        assert size in (None, (source.width, source.height))
        np.testing.assert_allclose(source.time, time, atol=1e-9)
        some = np.random.default_rng(0).permutation(source.index)[:5]
        for index in (source.index, source.index[-10:][::-1], some):
            for block in source.blocks(index):
                for frame, thumbnail in zip(block.index, thumbnails(block.rgb)):
                    difference = differences(expected, thumbnail)
                    assert difference[frame] <= min(difference.min() + 1e-3, TOLERANCE), f"frame {frame}"


def differences(expected: Int16Array, thumbnail: Int16Array) -> Float64Array:
    """(T,) mean absolute difference of an image from each of T images."""
    sums = np.abs(expected - thumbnail).reshape(len(expected), -1).sum(axis=1, dtype=np.int64)
    return sums / thumbnail.size


def reference(path: Path) -> tuple[list[float], Int16Array]:
    time, images = [], []
    for frame in decoded_by_pyav(path):
        time.append(float(frame.pts * frame.time_base))
        rgb = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
        images.append(thumbnails(rgb[None])[0])
    return time, np.stack(images)


def decoded_by_pyav(path: Path) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(container.streams.best("video"))


def thumbnails(rgb: UInt8Array) -> Int16Array:
    step_y, step_x = max(1, rgb.shape[1] // 40), max(1, rgb.shape[2] // 40)
    return rgb[:, ::step_y, ::step_x].astype(np.int16)
