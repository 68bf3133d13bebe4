"""Every frame is the correct one in any reading order; broken files are reported."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from aot.decoding import base
from aot.decoding.base import FrameSource
from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from tests.decoding.coded_video import CLOSED_GROUPS, numbers_in, write_coded_video
from tests.decoding.contract import NUM_FRAMES, FrameSourceContract

OPEN_X264 = {"x264-params": "keyint=12:min-keyint=12:bframes=3:scenecut=0:open-gop=1"}
OPEN_X265 = {"x265-params": "keyint=12:min-keyint=12:bframes=3:scenecut=0:open-gop=1:log-level=none"}

KINDS = {
    "closed groups.mp4": ("libx264", CLOSED_GROUPS),
    "closed.mkv": ("libx264", CLOSED_GROUPS),
    "open.mp4": ("libx264", OPEN_X264),
    "open.mkv": ("libx264", OPEN_X264),
    "open_hevc.mp4": ("libx265", OPEN_X265),
    "one_group.mp4": ("libx264", {"x264-params": "keyint=250:bframes=3:scenecut=0"}),
    "intra.mp4": ("libx264", {"x264-params": "keyint=1"}),
    "mpeg4.avi": ("mpeg4", {"g": "12", "q:v": "3"}),
    "broadcast.ts": ("libx264", CLOSED_GROUPS),
    "mpeg2.mkv": ("mpeg2video", {"bf": "2", "g": "12", "q:v": "3"}),
}


@pytest.fixture(params=KINDS)
def video(request: pytest.FixtureRequest, tmp_path: Path) -> VideoFile:
    codec, options = KINDS[request.param]
    return VideoFile(write_coded_video(tmp_path / request.param, range(100), codec=codec, options=options))


def read_in_blocks(video: VideoFile, index: np.ndarray, size: int = 9) -> list[int]:
    return [n for start in range(0, len(index), size) for n in numbers_in(video.read(index[start : start + size]).rgb)]


class TestContract(FrameSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[FrameSource]:
        with VideoFile(write_coded_video(tmp_path / "a.mp4", range(NUM_FRAMES))) as video:
            yield video


class TestRightFrames:
    """All containers and codecs, read in all orders."""

    def test_forwards_twice(self, video: VideoFile) -> None:
        for _ in range(2):
            assert read_in_blocks(video, video.index) == list(range(100))

    def test_backwards(self, video: VideoFile) -> None:
        assert read_in_blocks(video, video.index[::-1]) == list(range(100))[::-1]

    def test_streams_both_ways_in_blocks(self, video: VideoFile, monkeypatch: pytest.MonkeyPatch) -> None:
        frame_bytes = video.width * video.height * 3
        monkeypatch.setattr(base, "BLOCK_BYTES", 7 * frame_bytes)
        monkeypatch.setattr(base, "BACKWARD_BYTES", 30 * frame_bytes)
        for index in (video.index, video.index[::-1], video.index[60:20:-3]):
            blocks = list(video.blocks(index))
            assert max(len(block.index) for block in blocks) == 7
            assert [n for block in blocks for n in numbers_in(block.rgb)] == index.tolist()
            np.testing.assert_allclose(np.concatenate([block.time for block in blocks]), video.time[index])

    @pytest.mark.parametrize("interval", [3, 40])
    def test_kept_frames(self, video: VideoFile, interval: int) -> None:
        video.keep(video.index[::interval])
        assert read_in_blocks(video, video.index) == list(range(0, 100, interval))
        assert read_in_blocks(video, video.index[::-1]) == list(range(0, 100, interval))[::-1]

    def test_random_order(self, video: VideoFile) -> None:
        order = np.random.default_rng(0).permutation(100)
        assert read_in_blocks(video, order, size=4) == order.tolist()

    def test_late_frame_first(self, video: VideoFile) -> None:
        assert numbers_in(video.read([99, 98, 99, 50]).rgb).tolist() == [99, 98, 99, 50]
        assert numbers_in(video.read([0]).rgb).tolist() == [0]


class TestTimes:
    def test_variable_rate_and_late_start(self, tmp_path: Path) -> None:
        times = [250 + 50 * i + 50 * (i // 4) for i in range(40)]
        with VideoFile(write_coded_video(tmp_path / "vfr.mp4", range(40), times)) as video:
            np.testing.assert_allclose(video.time, np.array(times) / 1000, atol=1e-6)
            assert read_in_blocks(video, video.index[::-1]) == list(range(40))[::-1]

    def test_times_are_in_the_order_of_the_block(self, tmp_path: Path) -> None:
        with VideoFile(write_coded_video(tmp_path / "a.mp4")) as video:
            np.testing.assert_allclose(video.read([7, 2]).time, [0.28, 0.08], atol=1e-6)


def test_equal_consecutive_frames_are_kept(tmp_path: Path) -> None:
    numbers = [7] * 30 + [9] + [7] * 29
    with VideoFile(write_coded_video(tmp_path / "still.mp4", numbers)) as video:
        assert read_in_blocks(video, video.index) == numbers
        assert read_in_blocks(video, video.index[::-1]) == numbers[::-1]


@pytest.mark.parametrize(
    "name", ["-dash-.mp4", "with space.mp4", "fünf 映像.mp4", "50%d#1?x=y&z.mp4", "file:a.mp4", "it's.mp4"]
)
def test_unusual_file_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coded_video(tmp_path / "plain.mp4", range(5)).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with VideoFile(Path(name)) as video:
        assert read_in_blocks(video, video.index) == list(range(5))


@pytest.mark.parametrize("size", [(8, 2), (8, 16), (66, 50)])
def test_unusual_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    with VideoFile(write_coded_video(tmp_path / "a.mp4", range(3), size=size)) as video:
        assert video.read([2, 0]).rgb.shape == (2, size[1], size[0], 3)


class TestBroken:
    def test_text_file(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.mp4"
        path.write_text("not a video\n" * 50)
        with pytest.raises(DecodeError, match=r"notes\.mp4 \(600 bytes\): cannot be read as a video"):
            VideoFile(path)

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "empty.mp4"
        path.touch()
        with pytest.raises(DecodeError, match=r"empty\.mp4 \(0 bytes\)"):
            VideoFile(path)

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(
            DecodeError,
            match=r"gone\.mp4 cannot be read as a video: no such file or folder; check that the path is correct",
        ):
            VideoFile(tmp_path / "gone.mp4")

    def test_truncated_file(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        complete = write_coded_video(tmp_path / "complete.mkv", range(100), size=(320, 240)).read_bytes()
        cut = tmp_path / "cut.mkv"
        cut.write_bytes(complete[: len(complete) // 2])
        # Matroska files can be read without their end, but the header contains the length.
        with pytest.raises(DecodeError, match=r"the file has \d+ bytes, but \d+ according to its header: .* truncated"):
            VideoFile(cut)
        assert capfd.readouterr().err == ""

    def test_truncated_file_with_the_index_first(self, tmp_path: Path) -> None:
        """FFmpeg reads a file whose index comes first up to where it ends, without an error."""
        options = {"movflags": "faststart"}
        complete = write_coded_video(tmp_path / "complete.mp4", range(100), container_options=options)
        with av.open(str(complete)) as container:
            starts = sorted(packet.pos for packet in container.demux(video=0) if packet.size)
        cut = tmp_path / "cut.mp4"
        cut.write_bytes(complete.read_bytes()[: starts[50]])
        with pytest.raises(DecodeError, match=r"the file ends after \d+ bytes, inside a box that ends at byte \d+"):
            VideoFile(cut)

    def test_damaged_bytes(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        path = write_coded_video(tmp_path / "holes.mp4", range(100), size=(320, 240))
        content = bytearray(path.read_bytes())
        middle = content.index(b"mdat") + 4000
        content[middle : middle + 3000] = bytes(3000)
        path.write_bytes(content)
        # Which one depends on the frames that the hole meets: x264's threads do not always cut them alike.
        problem = r"(frame \d+ \(.* s\) cannot be decoded|\d+ of 100 packets are damaged).*re-encode.*ffmpeg -i"
        with pytest.raises(DecodeError, match=problem), VideoFile(path) as video:
            read_in_blocks(video, video.index)
        assert capfd.readouterr().err == ""

    def test_rotation_by_45_degrees(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "askew.mp4", range(3))
        content = bytearray(path.read_bytes())
        matrix = content.index(b"tkhd") + 44
        # Cosine and sine of 45 degrees, fixed point with 16 binary places.
        half = round(2**16 * 0.5**0.5)
        content[matrix : matrix + 20] = struct.pack(">5i", half, half, 0, -half, half)
        path.write_bytes(content)
        with pytest.raises(DecodeError, match=r"rotate the frames by -?45 degrees; expected 0, 90, 180 or 270"):
            VideoFile(path)

    def test_skipped_frame_is_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A decoder that silently skips a frame would shift all later ones."""
        with VideoFile(write_coded_video(tmp_path / "a.mp4", range(40))) as video:
            decoded = video._next_decoded
            monkeypatch.setattr(video, "_next_decoded", lambda: decoded() if video._next != 20 else skip(decoded))
            assert read_in_blocks(video, video.index[:18]) == list(range(18))
            with pytest.raises(DecodeError, match=r"frame 20 \(0\.800 s\) cannot be decoded: .* another time stamp"):
                read_in_blocks(video, video.index[18:])


def skip(decoded):  # type: ignore[no-untyped-def]
    decoded()
    return decoded()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_close_releases_the_file(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "a.mp4")
    video = VideoFile(path)
    video.read([30, 2])
    assert open_handles(path) > 0
    video.close()
    assert open_handles(path) == 0


def open_handles(path: Path) -> int:
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(os.path.realpath(link) == str(path.resolve()) for link in links)
