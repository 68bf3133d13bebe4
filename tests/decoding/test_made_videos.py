"""Unusual videos made by the tests: all frames as other decoders show them, or an error with the reason."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.stream import Disposition

from aot.decoding import first_frame as clip_first_frame
from aot.decoding import open_source
from aot.decoding.decord import DecordDecoder
from aot.decoding.displayed import displayed_image
from aot.decoding.pyav import PyAVDecoder
from aot.decoding.size import read_size
from aot.decoding.video_file import VideoFile, first_frame
from aot.errors import DecodeError, OutOfMemory, error_context
from aot.types import Clip
from tests.decoding.coded_video import CLOSED_GROUPS, numbers_in, write_coded_video
from tests.decoding.judges import JUDGES
from tests.decoding.made_videos import (
    CLUSTER,
    MIRRORINGS,
    NO_CHECKSUMS,
    READABLE,
    TURNS,
    Made,
    cut_at_frame,
    cut_before,
    with_damaged_frame,
    with_open_end,
    with_unknown_length,
    without_duration_tags,
    write_by_old_encoder,
    write_interlaced,
    write_narrow,
    write_size_change,
    write_streams,
    write_turned_in_part,
    write_with_cover,
    write_with_matrix,
)

# Mean difference between two conversions of the same frame to RGB.
TOLERANCE = 3.0


@pytest.fixture(scope="module", params=READABLE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Path]:
    video = READABLE[request.param]
    return video, video.make(tmp_path_factory.mktemp("made") / f"video{video.suffix}")


def numbers_of(made: Made, rgb: np.ndarray) -> list[int]:
    """The numbers in displayed frames, which are turned and mirrored back for it."""
    stored = np.rot90(rgb, -made.turns, axes=(1, 2))
    return numbers_in(stored[:, ::-1] if made.is_mirrored else stored).tolist()


def test_frames_and_times_are_those_that_were_encoded(made: tuple[Made, Path]) -> None:
    video, path = made
    times = np.arange(len(video.numbers)) / 25 if video.times is None else video.times
    with VideoFile(path) as source:
        assert (source.width, source.height) == video.size
        # MPEG-TS starts later by the delay of the encoder.
        np.testing.assert_allclose(source.time - source.time[0], np.subtract(times, times[0]), atol=1e-3)
        assert source.time[0] == pytest.approx(times[0], abs=0.3)
        np.testing.assert_allclose(np.sign(source.time[0]), np.sign(times[0]))
        for index in (source.index, source.index[::-1], np.random.default_rng(0).permutation(source.index)):
            expected = [video.numbers[frame] for frame in index]
            assert numbers_of(video, source.read(index).rgb) == expected


@pytest.mark.parametrize("judge", JUDGES)
def test_frames_equal_those_of_another_decoder(made: tuple[Made, Path], judge: str) -> None:
    video, path = made
    expected = JUDGES[judge](path, video.size).astype(np.int64)
    with VideoFile(path) as source:
        assert len(source.index) == len(expected)
        for index in (source.index[-1:], source.index, source.index[::-1]):
            difference = np.abs(source.read(index).rgb - expected[index]).mean(axis=(1, 2, 3))
            assert difference.max() < TOLERANCE
    assert np.abs(first_frame(path) - expected[0]).mean() < TOLERANCE


def test_a_seek_does_not_change_frames(tmp_path: Path) -> None:
    """The encoder's version is only in the first packet, and decides how the others are decoded."""
    path, expected = decodable_by_old_encoder(tmp_path)
    with VideoFile(path) as source:
        np.testing.assert_array_equal(source.read(source.index[-8:]).rgb, expected[-8:])


def decodable_by_old_encoder(folder: Path) -> tuple[Path, np.ndarray]:
    """A video whose frames depend on the version in its first packet, and its frames in one pass from the first on."""
    for seed in range(20):
        path = write_by_old_encoder(folder / f"{seed}.mp4", seed)
        frames = decoded_from(path, 0)
        if not any(frame.is_corrupt for frame in frames):
            images, late = (np.stack([frame.to_ndarray(format="rgb24") for frame in part]) for part in (
                frames, decoded_from(path, frames[-12].pts)
            ))  # fmt: skip
            if (late[-8:] != images[-8:]).any():
                return path, images
    raise AssertionError("no texture shows whether the decoder has seen the first packet")


def decoded_from(path: Path, pts: int) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        if pts:
            container.seek(pts, stream=stream)
        return list(container.decode(stream))


class TestColourMatrices:
    """Every colour matrix that a video may name is converted, or refused with a reason and a command."""

    UNSUPPORTED = (8, *range(10, 18))

    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv420p10le"])
    def test_converted(self, tmp_path: Path, pix_fmt: str) -> None:
        for matrix in sorted(set(range(18)) - set(self.UNSUPPORTED)):
            path = write_with_matrix(tmp_path / f"{matrix}.mkv", matrix, pix_fmt)
            for decoder in (PyAVDecoder(), DecordDecoder()):
                with decoder.open(path) as source:
                    assert numbers_in(source.read([2, 0]).rgb).tolist() == [2, 0]

    @pytest.mark.parametrize("open_video", [PyAVDecoder().open, DecordDecoder().open, first_frame])
    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
    def test_refused(self, tmp_path: Path, pix_fmt: str, open_video: Callable[[Path], object]) -> None:
        for matrix in self.UNSUPPORTED:
            path = write_with_matrix(tmp_path / f"{matrix}.mkv", matrix, pix_fmt)
            message = rf"{matrix}\.mkv: its colours cannot be converted to RGB .* colour matrix {matrix} \(.*; expected"
            with pytest.raises(DecodeError, match=message):
                open_video(path)

    @pytest.mark.parametrize("error", [MemoryError(), av.BlockingIOError(errno.EAGAIN, "no thread")])
    def test_no_memory_is_not_taken_for_unknown_colours(self, error: Exception) -> None:
        class Failing:
            def reformat(self, frame: object, *, format: str) -> None:
                raise error

        with pytest.raises(OutOfMemory), error_context():
            displayed_image(SimpleNamespace(interlaced_frame=False), Path("a.mp4"), Failing())

    def test_the_advice_helps(self, tmp_path: Path) -> None:
        if shutil.which("ffmpeg") is None:
            pytest.skip("no ffmpeg command: `make system` installs it (as root on Debian)")
        with pytest.raises(DecodeError, match=r"colour matrix 14 \(ICtCp\)") as caught:
            VideoFile(write_with_matrix(tmp_path / "a.mkv", 14))
        command = re.search(r"ffmpeg -i .*_repaired\.mp4", str(caught.value))[0]
        subprocess.run([*shlex.split(command), "-v", "error", "-nostdin"], check=True)
        with VideoFile(tmp_path / "a_repaired.mp4") as repaired:
            assert numbers_in(repaired.read(repaired.index).rgb).tolist() == [0, 1, 2]


class TestDamage:
    """Damage is reported at the first frame that it affects; what is before it can be read."""

    @pytest.mark.parametrize("frame", [17, 39])
    @pytest.mark.parametrize(
        ("name", "codec", "options", "num_earlier"),
        [
            # H.264 is decoded several frames ahead of what is returned.
            ("a.mp4", "libx264", CLOSED_GROUPS, 5),
            ("a.avi", "mpeg4", {"g": "12"}, 0),
            ("a.mov", "mpeg2video", {"g": "12"}, 0),
            ("a.webm", "libvpx-vp9", {}, 0),
        ],
    )
    def test_damaged_frame(
        self,
        tmp_path: Path,
        name: str,
        codec: str,
        options: dict[str, str],
        num_earlier: int,
        frame: int,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        path = write_coded_video(tmp_path / name, codec=codec, options=options, size=(320, 240))
        with VideoFile(with_damaged_frame(path, frame)) as source:
            assert numbers_in(source.read(source.index[:10]).rgb).tolist() == list(range(10))
            with pytest.raises(DecodeError, match=r"cannot be decoded: .*damaged; expected all 40") as caught:
                source.read(source.index)
        reported = re.search(r"frame (\d+) \(", str(caught.value))
        assert reported
        assert frame - num_earlier <= int(reported[1]) <= frame
        assert capfd.readouterr().err == ""

    def test_frame_that_is_only_reported_as_damaged(self, tmp_path: Path) -> None:
        """The decoder fills what is missing and returns the frame; nothing else shows the damage."""
        path = with_damaged_frame(write_coded_video(tmp_path / "a.mp4", size=(640, 480), texture=80), 25, 0.9)
        with VideoFile(path) as source, pytest.raises(DecodeError, match=r"frame 25 .* reports it as damaged"):
            source.read(source.index)

    def test_damage_soon_after_a_seek(self, tmp_path: Path) -> None:
        """With two threads, FFmpeg returns most of these frames before it knows that they are damaged."""
        path = write_coded_video(tmp_path / "a.mkv", size=(640, 480), texture=80, container_options=NO_CHECKSUMS)
        with_damaged_frame(path, 25, 0.9)
        for _ in range(8):
            with VideoFile(path) as source, pytest.raises(DecodeError, match=r"frame 25 .* reports it as damaged"):
                source.read([25])

    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
    def test_size_change_with_valid_time_stamps(self, tmp_path: Path, name: str) -> None:
        with VideoFile(write_size_change(tmp_path / name)) as source:
            assert numbers_in(source.read(source.index[:20]).rgb).tolist() == list(range(20))
            with pytest.raises(
                DecodeError, match=r"size changes to 96x64 px at frame 20 \(.* s\), expected 64x48 px as in the first"
            ):
                source.read([20])

    def test_turned_size_change(self, tmp_path: Path) -> None:
        with (
            VideoFile(write_size_change(tmp_path / "a.mkv", ((64, 48), (48, 64)))) as source,
            pytest.raises(DecodeError, match="size changes to 48x64 px at frame 20"),
        ):
            source.read([25])


class TestCutOff:
    """A file whose end is missing is not read as a shorter video, even if it ends exactly behind a frame."""

    CUT = {
        "an MP4 that starts late": (
            "a.mp4", lambda path: with_open_end(write_coded_video(
                path, range(40), [10_000 + 40 * i for i in range(40)], container_options={"movflags": "faststart"}
            )), r"the header lists 40 frames, but the file has \d+",
        ),
        "an MXF": (
            "a.mxf", lambda path: write_coded_video(path, codec="mpeg2video", options={"g": "12"}),
            r"the header lists 40 frames, but the file has \d+",
        ),
        "an MKV longer than an hour": (
            "a.mkv", lambda path: write_coded_video(path, range(40), [100_000 * i for i in range(40)]),
            r"a duration of 3900\.040 s, but the frames end after \d{3}\.040 s",
        ),
        "an MKV without the duration of its only stream": (
            "a.mkv", lambda path: without_duration_tags(
                write_coded_video(path, range(100), container_options={"cluster_time_limit": "1000"})
            ),
            r"a duration of 4\.000 s, but the frames end after [12]\.\d+ s",
        ),
        "an MKV whose audio is longer": (
            "a.mkv", lambda path: write_streams(path, [((640, 480), "yuv420p", range(200))], audio_seconds=12),
            r"a duration of 8\.000 s, but the frames end after [1-6]\.\d+ s",
        ),
    }  # fmt: skip

    @pytest.mark.parametrize("kind", CUT)
    def test_file_that_is_cut_off(self, tmp_path: Path, kind: str) -> None:
        name, make, message = self.CUT[kind]
        path = make(tmp_path / name)
        with VideoFile(path) as source:
            assert len(source.index) in (40, 100, 200)
        with pytest.raises(DecodeError, match=rf"{message}: the file is truncated; copy it again"):
            VideoFile(cut_at_cluster(path) if path.suffix == ".mkv" else cut_at_frame(path, 20))

    def test_cut_inside_the_last_frame(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
        cut_at_frame(with_open_end(path), 12)
        path.write_bytes(path.read_bytes() + b"\x11")
        with pytest.raises(DecodeError, match=r"its last packet \(at 0\.\d+ s, byte \d+\) is damaged or incomplete"):
            VideoFile(path)

    def test_missing_fragments(self, tmp_path: Path) -> None:
        """A file in fragments may end behind any of them; some have an index at the beginning."""
        options = {"movflags": "dash+delay_moov+global_sidx+frag_keyframe"}
        path = write_coded_video(tmp_path / "a.mp4", range(100), container_options=options)
        cut_before(path, b"moof", 0.5)
        path.write_bytes(path.read_bytes()[:-4])  # the length of the fragment
        with pytest.raises(DecodeError, match=r"a duration of 4\.\d+ s, but the frames end after [01]\.\d+ s"):
            VideoFile(path)

    def test_unfinished_recording(self, tmp_path: Path) -> None:
        """A recording that was interrupted has no duration in its header: if no part is cut, nothing is missing."""
        path = write_coded_video(tmp_path / "a.mkv", range(100), size=(320, 240), container_options={"live": "1"})
        cut_before(path, CLUSTER, 0.5)
        with VideoFile(path) as source:
            assert 20 < len(source.index) < 80
            assert numbers_in(source.read(source.index).rgb).tolist() == source.index.tolist()
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(DecodeError, match=r"the file ends after \d+ bytes inside a cluster: .* truncated"):
            VideoFile(path)


def cut_at_cluster(path: Path) -> Path:
    return cut_before(with_unknown_length(path), CLUSTER, 0.5)


class TestHeaders:
    def test_audio_only(self, tmp_path: Path) -> None:
        path = write_streams(tmp_path / "a.mp4", [], audio_seconds=1)
        with pytest.raises(DecodeError, match=r"no video stream, only audio; expected a video file"):
            VideoFile(path)
        with pytest.raises(DecodeError, match=r"no video stream, only audio; expected a video file"):
            first_frame(path)

    def test_title_in_another_encoding(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.mkv")
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURAT\xefON"))
        with VideoFile(path) as source:
            assert numbers_in(source.read([0, 39]).rgb).tolist() == [0, 39]
        assert numbers_in(first_frame(path)[None]).tolist() == [0]

    @pytest.mark.parametrize(("times_ms", "fps"), [([0], 1.0), ([0, 500], 2.0), ([0, 500, 700], 2 / 0.7)])
    def test_average_rate_without_one_in_the_header(self, tmp_path: Path, times_ms: list[int], fps: float) -> None:
        options = {"x264-params": "keyint=1"}
        path = write_coded_video(tmp_path / "a.ts", range(3), times_ms, size=(320, 240), options=options)
        with VideoFile(path) as source:
            assert source.fps == pytest.approx(fps)


class TestInterlaced:
    """Fields are shown together, and their colours are converted as those of one frame."""

    @pytest.mark.parametrize("num_grey", [0, 10])
    def test_both_decoders_show_what_ffmpeg_shows(self, tmp_path: Path, num_grey: int) -> None:
        path = write_interlaced(tmp_path / "a.mkv", num_grey)
        expected = JUDGES["ffmpeg"](path, (192, 128)).astype(np.int64)
        for open_video in (VideoFile, DecordDecoder().open):
            with open_video(path) as source:
                difference = np.abs(source.read(source.index).rgb - expected)
                assert difference.mean(axis=(1, 2, 3)).max() < TOLERANCE

    def test_decord_reads_them(self, tmp_path: Path) -> None:
        path = write_interlaced(tmp_path / "a.mkv", num_grey=10)
        with DecordDecoder().open(path) as source, VideoFile(path) as expected:
            assert source.decoder == "decord"
            np.testing.assert_array_equal(source.read(source.index).rgb, expected.read(source.index).rgb)


class TestOrientationOfSomeFrames:
    """FFmpeg applies an orientation inside H.264 only to the key frames: such a video is refused."""

    @pytest.mark.parametrize(("turns", "is_mirrored"), [(1, False), (2, False), (0, True), (3, True)])
    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
    def test_refused(self, tmp_path: Path, suffix: str, turns: int, is_mirrored: bool) -> None:
        path = write_turned_in_part(tmp_path / f"a{suffix}", turns, is_mirrored=is_mirrored)
        for decoder in (PyAVDecoder(), DecordDecoder()):
            with (
                decoder.open(path) as source,
                pytest.raises(
                    DecodeError, match=r"frame 1 \(.* s\) is turned or mirrored in another way than the first"
                ),
            ):
                source.read(source.index)

    def test_the_advice_helps(self, tmp_path: Path) -> None:
        if shutil.which("ffmpeg") is None:
            pytest.skip("no ffmpeg command: `make system` installs it (as root on Debian)")
        path = write_turned_in_part(tmp_path / "a.mp4", 1)
        with VideoFile(path) as source, pytest.raises(DecodeError) as caught:
            source.read([5])
        command = str(caught.value).partition("as they are stored: ")[2]
        subprocess.run([*shlex.split(command), "-v", "error", "-nostdin"], check=True)
        with VideoFile(tmp_path / "a_repaired.mp4") as repaired:
            assert (repaired.width, repaired.height) == (64, 48)
            assert numbers_in(repaired.read(repaired.index).rgb).tolist() == list(range(40))


class TestStreams:
    """Files with several video streams."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        streams = [((64, 48), "yuv420p", range(40)), ((64, 48), "yuv420p", range(100, 120)), ((32, 16), "yuv420p", [1])]
        return write_streams(tmp_path / "a.mkv", streams)

    def test_any_can_be_chosen(self, path: Path) -> None:
        expected = {None: list(range(40)), 0: list(range(40)), 1: list(range(100, 120)), 2: [1]}
        for stream, numbers in expected.items():
            clip = Clip("a", path, stream=stream)
            size = read_size(path, stream=stream)
            assert (size.width, size.height) == ((32, 16) if stream == 2 else (64, 48))
            assert numbers_in(clip_first_frame(clip)[None]).tolist() == numbers[:1]
            for decoder in (None, PyAVDecoder(), DecordDecoder()):
                with open_source(clip, decoder) as source:
                    assert source.stream == (stream or 0)
                    for index in (source.index, source.index[::-1]):
                        assert numbers_in(source.read(index).rgb).tolist() == [numbers[frame] for frame in index]

    def test_a_missing_one_is_refused_with_those_that_exist(self, path: Path) -> None:
        clip = Clip("a", path, stream=3)
        message = (
            r"a\.mkv: has no video stream 3 \(dataset\.stream\); expected one of "
            r"0: h264 64x48 px, 1: h264 64x48 px, 2: h264 32x16 px"
        )
        for read in (open_source, clip_first_frame, lambda clip: read_size(clip.source, stream=clip.stream)):
            with pytest.raises(DecodeError, match=message):
                read(clip)

    def test_an_unknown_codec_is_refused(self, path: Path) -> None:
        content = path.read_bytes()
        assert content.count(b"V_MPEG4/ISO/AVC") == 3
        path.write_bytes(content.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ", 1))
        with VideoFile(path) as source:
            assert (source.stream, source.num_source_frames) == (1, 20)
        for read in (
            VideoFile,
            lambda path, stream: first_frame(path, stream),
            lambda path, stream: read_size(path, stream=stream),
        ):
            with pytest.raises(DecodeError, match=r"a\.mkv: its video stream has a codec that FFmpeg does not know"):
                read(path, stream=0)
        with pytest.raises(DecodeError, match=r"expected one of 0: unknown codec, 1: h264 64x48 px, 2: h264 32x16 px"):
            VideoFile(path, stream=3)

    def test_the_default_one_is_preferred(self, tmp_path: Path) -> None:
        """FFmpeg counts a default stream as 5 million px larger."""
        path = tmp_path / "a.mkv"
        with av.open(str(path), "w") as container:
            first, second = (container.add_stream("libx264", rate=25) for _ in range(2))
            for stream, size in ((first, 96), (second, 64)):
                stream.width, stream.height, stream.pix_fmt = size, 48, "yuv420p"
            second.disposition = Disposition.default.value
            for stream in (first, second):
                for packet in stream.encode(av.VideoFrame(stream.width, 48, "yuv420p")) + stream.encode(None):
                    container.mux(packet)
        assert JUDGES["ffmpeg"](path, (64, 48)).shape == (1, 48, 64, 3)
        with VideoFile(path) as source:
            assert (source.width, source.stream) == (64, 1)

    def test_a_cover_is_no_video(self, tmp_path: Path) -> None:
        path = write_with_cover(tmp_path / "a.mp4")
        with pytest.raises(DecodeError, match=r"has no video stream 1 .*; expected one of 0: h264 64x48 px$"):
            VideoFile(path, stream=1)
        silent = write_with_cover(tmp_path / "b.mp4", has_video=False)
        with pytest.raises(DecodeError, match=r"no video stream, only a cover image, audio; expected a video file"):
            VideoFile(silent)


class TestAverageRate:
    """(frames - 1) / (last - first time stamp), whatever the header says; exact where the header agrees."""

    VARIABLE_MS = ([40 * i for i in range(20)], [760 + 1000 * i for i in range(1, 5)])

    @pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
    def test_variable(self, tmp_path: Path, suffix: str) -> None:
        times_ms = [time for part in self.VARIABLE_MS for time in part]
        path = write_coded_video(tmp_path / f"a{suffix}", range(24), times_ms)
        for decoder in (PyAVDecoder(), DecordDecoder()):
            with decoder.open(path) as source:
                assert source.fps == pytest.approx(23 / 4.76, rel=1e-6)

    def test_constant_with_rounded_times(self, tmp_path: Path) -> None:
        """Matroska rounds times to ms, so that the average of the times may differ from the rate in the header."""
        times_ms = [round(i * 1000 / 24) for i in range(30)]
        path = write_coded_video(tmp_path / "a.mkv", range(30), times_ms, rate=24)
        with VideoFile(path) as source:
            assert source.time[-1] == pytest.approx(1.208)
            assert source.fps == 24


class TestPixelAspect:
    """Frames have the stored pixels; their shape as displayed is known, and turns with them."""

    ASPECT = Fraction(4, 3)

    @pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mov"])
    def test_all_containers(self, tmp_path: Path, suffix: str) -> None:
        path = write_narrow(tmp_path / f"a{suffix}", self.ASPECT)
        for decoder in (PyAVDecoder(), DecordDecoder()):
            with decoder.open(path) as source:
                assert (source.width, source.height, source.pixel_aspect) == (64, 48, self.ASPECT)
                assert numbers_in(source.read([39, 1]).rgb).tolist() == [39, 1]

    @pytest.mark.parametrize(
        ("matrix", "expected"),
        [
            (TURNS[1], 1 / ASPECT), (TURNS[2], ASPECT), (TURNS[3], 1 / ASPECT),
            (MIRRORINGS["left-right"], ASPECT), (MIRRORINGS["transpose"], 1 / ASPECT),
        ],
    )  # fmt: skip
    def test_turned(self, tmp_path: Path, matrix: tuple[int, ...], expected: Fraction) -> None:
        path = write_narrow(tmp_path / "a.mp4", self.ASPECT, matrix)
        for decoder in (PyAVDecoder(), DecordDecoder()):
            with decoder.open(path) as source:
                assert source.pixel_aspect == expected

    def test_square(self, tmp_path: Path) -> None:
        with VideoFile(write_coded_video(tmp_path / "a.mp4")) as source:
            assert source.pixel_aspect == 1


class TestAVI:
    """AVI stores no presentation times."""

    @pytest.mark.parametrize(
        ("codec", "options"),
        [
            ("libx264", {"x264-params": "bframes=0"}),
            ("mpeg4", {"g": "12", "bf": "2"}),
            ("mpeg2video", {"g": "12", "bf": "2"}),
            ("mpeg4", {"g": "12"}),
        ],
    )
    def test_frames_begin_at_zero_in_their_order(self, tmp_path: Path, codec: str, options: dict[str, str]) -> None:
        path = write_coded_video(tmp_path / "a.avi", codec=codec, options=options)
        for decoder in (PyAVDecoder(), DecordDecoder()):
            with decoder.open(path) as source:
                np.testing.assert_allclose(source.time, np.arange(40) / 25)
                for index in (source.index, source.index[::-1]):
                    assert numbers_in(source.read(index).rgb).tolist() == index.tolist()

    def test_a_late_start_in_the_header_is_kept(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.avi", codec="mpeg4", options={"g": "12"})
        content = bytearray(path.read_bytes())
        start = content.index(b"strh") + 8 + 28  # dwStart of the stream's header, in frames
        content[start : start + 4] = (50).to_bytes(4, "little")
        path.write_bytes(content)
        with PyAVDecoder().open(path) as source:
            np.testing.assert_allclose(source.time, 2 + np.arange(40) / 25)

    def test_b_frames_of_h264_are_refused_with_the_reason(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.avi")
        for decoder in (PyAVDecoder(), DecordDecoder()):
            message = (
                r"frame 1 .* time stamp \(4\), because AVI stores no presentation times, and FFmpeg makes up wrong"
            )
            with decoder.open(path) as source, pytest.raises(DecodeError, match=message):
                source.read(source.index)


class TestReplacedFiles:
    """Files are probed once as long as they do not change."""

    def test_file_replaced_by_one_of_equal_size(self, tmp_path: Path) -> None:
        long, short = (
            write_coded_video(tmp_path / "long.mp4", range(40)),
            write_coded_video(tmp_path / "a.mp4", range(9)),
        )
        num_bytes = long.stat().st_size
        with short.open("ab") as file:
            file.write(bytes(num_bytes - short.stat().st_size))
        os.utime(short, ns=(10**18, 10**18))
        with VideoFile(short) as source:
            assert source.num_source_frames == 9
        long.replace(short)
        assert short.stat().st_size == num_bytes
        with VideoFile(short) as source:
            assert source.num_source_frames == 40

    def test_equal_relative_paths_in_two_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, numbers in {"one": range(9), "two": range(40)}.items():
            folder = tmp_path / name
            folder.mkdir()
            path = write_coded_video(folder / "a.mp4", numbers)
            with path.open("ab") as file:
                file.write(bytes(20_000 - path.stat().st_size))
            os.utime(path, ns=(10**18, 10**18))
            monkeypatch.chdir(folder)
            with VideoFile(Path("a.mp4")) as source:
                assert source.num_source_frames == len(numbers)
