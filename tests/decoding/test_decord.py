"""decord returns the frames that PyAV returns, in any order and in bounded memory; PyAV decodes what it cannot."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from aot.decoding import decord_file
from aot.decoding.base import FrameSource
from aot.decoding.decord import DecordDecoder
from aot.decoding.decord_file import DecordFile
from aot.decoding.decord_reader import DecordReader
from aot.decoding.pieces import VideoPieces
from aot.decoding.probe import probe_video
from aot.decoding.pyav import PyAVDecoder
from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from aot.types import UInt8Array
from tests.decoding.coded_video import CLOSED_GROUPS, numbers_in, write_coded_video
from tests.decoding.contract import NUM_FRAMES, FrameSourceContract
from tests.decoding.made_videos import (
    READABLE,
    Made,
    cut_off,
    with_damaged_frame,
    write_size_change,
)
from tests.decoding.test_video_file import KINDS, OPEN_X264, read_in_blocks

FRAME_BYTES = 64 * 48 * 3


def holding(num_frames: int, frame_bytes: int = FRAME_BYTES) -> DecordDecoder:
    """A decoder whose buffer holds this number of frames."""
    return DecordDecoder(max_buffer_gb=num_frames * frame_bytes / 1e9)


class TestPyAVContract(FrameSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[FrameSource]:
        with PyAVDecoder().open(write_coded_video(tmp_path / "a.mp4", range(NUM_FRAMES))) as source:
            assert (source.decoder, source.decoder_version, source.decoder_fallback) == ("pyav", av.__version__, "")
            yield source


class TestContract(FrameSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[FrameSource]:
        with DecordDecoder().open(write_coded_video(tmp_path / "a.mp4", range(NUM_FRAMES))) as source:
            assert (source.decoder, source.decoder_fallback) == ("decord", "")
            assert source.decoder_version.startswith("3.")
            yield source


class TestContractInPieces(FrameSourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[FrameSource]:
        with holding(15).open(write_coded_video(tmp_path / "a.mkv", range(NUM_FRAMES))) as source:
            assert (source.decoder, source.decoder_fallback) == ("decord", "")
            yield source


SYMMETRIC = "its first frame looks the same when it is turned, so that decord may not turn the others"
FALLBACKS = {
    "turned, of odd size": "its size 51x67 px is odd",
    # decord takes the padding of rows of 48 px for a fourth colour.
    "turned by 90 degrees": "decord returns frame 0 with the shape (64, 48, 4)",
    "turned by 270 degrees": "decord returns frame 0 with the shape (64, 48, 4)",
    "turned by 89.6 degrees": "decord returns frame 0 with the shape (64, 48, 4)",
    "turned by 180 degrees": SYMMETRIC,
    "Motion JPEG turned by EXIF": SYMMETRIC,
    "mirrored": "its metadata mirror the frames",
    "upside down and mirrored": "its metadata mirror the frames",
    "transposed": "its metadata mirror the frames",
    "transposed the other way": "its size 51x67 px is odd",
    # decord seeks to the first frame, which arrives too late in MPEG-TS.
    "negative times": "decord and PyAV decode its first frame to different images",
    "4:4:4 of odd size": "its size 67x51 px is odd",
    "odd size, MPEG-2": "its size 67x51 px is odd",
    "odd size, VP8": "its size 67x51 px is odd",
    "odd size, VP9": "its size 67x51 px is odd",
    "10 bits": "its colours have 10 bits, decord is verified for 8",
    "lossless RGB": "its size 67x51 px is odd",
    "a small stream first": "it has 2 video streams, of which decord chooses one by itself",
    "two equal streams": "it has 2 video streams, of which decord chooses one by itself",
    "two equal streams, the first with fewer bits": "it has 2 video streams, of which decord chooses one by itself",
    "a cover first": "decord's FFmpeg reports problems in the file",
    "frames before the start": "the header counts 40 frames, but 35 are shown",
}


@pytest.fixture(scope="module", params=READABLE)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Made, Path]:
    video = READABLE[request.param]
    return request.param, video, video.make(tmp_path_factory.mktemp("made") / f"video{video.suffix}")


@pytest.mark.parametrize("num_held", [1000, 15])
def test_frames_and_times_of_unusual_videos_are_those_of_pyav(made: tuple[str, Made, Path], num_held: int) -> None:
    kind, video, path = made
    with VideoFile(path) as expected, holding(num_held, video.size[0] * video.size[1] * 3).open(path) as source:
        np.testing.assert_array_equal(source.time, expected.time)
        for index in orders(source):
            np.testing.assert_array_equal(source.read(index).rgb, expected.read(index).rgb)
        if num_held == 1000:
            chosen = ("pyav", FALLBACKS[kind]) if kind in FALLBACKS else ("decord", "")
            assert (source.decoder, source.decoder_fallback) == chosen


def orders(source: FrameSource) -> list[np.ndarray]:
    return [source.index, source.index[::-1], np.random.default_rng(0).permutation(source.index)]


LEFT_TO_PYAV = {"broadcast.ts"}
UNCUTTABLE = {"open.mp4", "open.mkv", "open_hevc.mp4", "one_group.mp4", "mpeg2.mkv"}
if av.__version__ < "18":
    UNCUTTABLE |= {"mpeg4.avi"}  # the pieces that it writes have no frame rate


@pytest.mark.parametrize("num_held", [1000, 30])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_all_codecs_in_all_orders(tmp_path: Path, kind: str, num_held: int) -> None:
    codec, options = KINDS[kind]
    path = write_coded_video(tmp_path / kind, range(100), codec=codec, options=options)
    with holding(num_held).open(path) as source:
        assert source.decoder == ("pyav" if kind in (LEFT_TO_PYAV if num_held == 1000 else UNCUTTABLE) else "decord")
        for index in (source.index, source.index[::-1], source.index[60:20:-3], source.index[3::40]):
            assert read_in_blocks(source, index) == index.tolist()
        source.keep(source.index[50:])
        assert read_in_blocks(source, source.index) == list(range(50, 100))


def test_reason_where_no_piece_fits_the_buffer(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "open.mp4", range(100), options=OPEN_X264)
    with holding(30).open(path) as source:
        assert source.decoder_fallback == (
            "decoder.max_buffer_gb holds 30 of its 100 frames, and it has 100 frames between key frames at which it "
            "could be cut"
        )


class TestMemory:
    """decord decodes ahead without a limit, so it must never have more frames than the buffer holds."""

    @pytest.fixture
    def opened(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """The pieces that decord reads, as they are opened; fails if two are open at once."""
        opened: list[tuple[int, int]] = []
        num_open = [0]
        open_reader, close_reader = DecordReader.__init__, getattr(DecordReader, "__del__", lambda self: None)

        def opening(self: DecordReader, source: Path | bytes, probe: object, start: int, end: int) -> None:
            num_open[0] += 1
            assert num_open[0] == 1, "the last piece is still in memory"
            opened.append((start, end))
            open_reader(self, source, probe, start, end)  # type: ignore[arg-type]

        def closing(self: DecordReader) -> None:
            num_open[0] -= 1
            close_reader(self)

        monkeypatch.setattr(DecordReader, "__init__", opening)
        monkeypatch.setattr(DecordReader, "__del__", closing, raising=False)
        return opened

    def test_a_long_clip_is_read_in_the_largest_pieces_that_fit(
        self, tmp_path: Path, opened: list[tuple[int, int]]
    ) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(200))
        with holding(40).open(path) as source:
            for _ in range(2):
                assert [n for block in source.blocks() for n in numbers_in(block.rgb)] == list(range(200))
        one_pass = [(start, min(start + 36, 200)) for start in range(0, 200, 36)]
        assert opened == one_pass * 2

    def test_a_clip_that_fits_is_read_at_once(self, tmp_path: Path, opened: list[tuple[int, int]]) -> None:
        with holding(100).open(write_coded_video(tmp_path / "a.mp4", range(100))) as source:
            assert read_in_blocks(source, source.index) == list(range(100))
        assert opened == [(0, 100)]

    @pytest.mark.parametrize("num_held", [1000, 40])
    def test_backwards_only_the_groups_of_a_block_are_read(
        self, tmp_path: Path, opened: list[tuple[int, int]], num_held: int
    ) -> None:
        with holding(num_held).open(write_coded_video(tmp_path / "a.mp4", range(100))) as source:
            del opened[:]
            assert read_in_blocks(source, source.index[::-1], size=20) == list(range(100))[::-1]
        assert opened == [(72, 100), (60, 84), (36, 60), (12, 48), (0, 24)] or num_held == 40
        assert max(end - start for start, end in opened) <= 40

    def test_long_groups_are_left_to_pyav_when_read_at_random(
        self, tmp_path: Path, opened: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decord_file, "MAX_GROUP_AT_RANDOM", 11)
        with DecordDecoder().open(write_coded_video(tmp_path / "a.mp4", range(100))) as source:
            assert numbers_in(source.read([70]).rgb).tolist() == [70]
        assert opened == [(0, 100)]

    def test_a_time_range_is_read_from_the_key_frame_before_it(
        self, tmp_path: Path, opened: list[tuple[int, int]]
    ) -> None:
        with DecordDecoder().open(write_coded_video(tmp_path / "a.mp4", range(200))) as source:
            source.keep(source.index[150:170])
            assert read_in_blocks(source, source.index) == list(range(150, 170))
        assert opened == [(0, 200), (144, 200)]


class TestVerification:
    @pytest.fixture
    def compared(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """The number of frames that PyAV has decoded as the judge, after each frame that it was asked for."""
        compared: list[int] = []
        read = VideoFile.read

        def reading(self: VideoFile, index: list[int]) -> object:
            compared.extend(index)
            return read(self, index)

        monkeypatch.setattr(VideoFile, "read", reading)
        return compared

    def test_repeats_are_compared_but_static_footage_is_not_decoded_twice(
        self, tmp_path: Path, compared: list[int]
    ) -> None:
        numbers = [*range(1, 21), *[7] * 200, *range(1, 21)]
        path = write_coded_video(tmp_path / "still.mp4", numbers)
        with DecordDecoder().open(path) as source:
            assert isinstance(source, DecordFile)
            assert read_in_blocks(source, source.index) == numbers
            # Frame 24 is a key frame, which is encoded again and differs a little.
            assert compared[:10] == [21, 22, 23, *range(25, 32)]
            assert source._verifier._judge.num_taken < 0.2 * len(numbers)

    def test_frames_are_spot_checked_at_a_tenth_of_the_cost(self, tmp_path: Path, compared: list[int]) -> None:
        numbers = [(n + 1) % 256 for n in range(600)]
        path = write_coded_video(tmp_path / "a.mp4", numbers)
        with DecordDecoder().open(path) as source:
            assert isinstance(source, DecordFile)
            assert read_in_blocks(source, source.index) == numbers
            assert compared == [180, 360, 540]
            assert source._verifier._judge.num_taken < 0.1 * len(numbers)

    @pytest.mark.parametrize("kept_bytes", [None, 0])
    def test_first_frame_is_compared_with_that_of_the_probe_or_decoded_again(
        self, tmp_path: Path, compared: list[int], monkeypatch: pytest.MonkeyPatch, kept_bytes: int | None
    ) -> None:
        """A short clip needs no other comparison: then the file is not opened once more."""
        if kept_bytes is not None:  # a large frame is not kept
            monkeypatch.setattr("aot.decoding.probe.MAX_KEPT_BYTES", kept_bytes)
        path = write_coded_video(tmp_path / "a.mp4", range(1, 9))
        with DecordDecoder().open(path) as source:
            assert isinstance(source, DecordFile)
            assert read_in_blocks(source, source.index) == list(range(1, 9))
            assert compared == ([] if kept_bytes is None else [0])
            assert (source._verifier._opened is None) == (kept_bytes is None)
        replace_image(monkeypatch, 0, by=5)
        with DecordDecoder().open(path) as source:
            assert source.decoder_fallback == "decord and PyAV decode its first frame to different images"

    @pytest.mark.parametrize("num_held", [1000, 40])
    def test_a_false_repeat_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_held: int) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(100))
        with holding(num_held).open(path) as source:
            replace_image(monkeypatch, 20, by=19)
            assert read_in_blocks(source, source.index[:20]) == list(range(20))
            with pytest.raises(
                DecodeError, match=r"frame 20 \(0\.800 s\): decord returns another image than PyAV; use decoder=pyav"
            ):
                source.read([20])

    def test_lost_frames_are_noticed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A decoder that silently skips a frame shifts all later ones; no frame is repeated before the end."""
        path = write_coded_video(tmp_path / "a.mp4", [(n + 1) % 256 for n in range(400)])
        take = DecordReader.take

        def shifted(self: DecordReader) -> UInt8Array:
            if self.position == 30:
                self._reader.next()
            return take(self)

        monkeypatch.setattr(DecordReader, "take", shifted)
        with DecordDecoder().open(path) as source, pytest.raises(DecodeError, match=r"frame 180 .*another image"):
            read_in_blocks(source, source.index)

    def test_colours_are_verified_on_the_first_frame_that_has_some(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A black first frame is equal whatever the conversion of colours."""
        path = write_coded_video(tmp_path / "a.mp4", [0, 0, 5, 6, 7])
        with DecordDecoder().open(path) as source:
            replace_image(monkeypatch, 2, by=6)
            assert numbers_in(source.read([0, 1]).rgb).tolist() == [0, 0]
            with pytest.raises(DecodeError, match=r"frame 2 .*another image than PyAV"):
                source.read([2])

    def test_file_whose_first_frame_differs_is_left_to_pyav(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(1, 20))
        replace_image(monkeypatch, 0, by=5)
        with DecordDecoder().open(path) as source:
            assert (source.decoder, source.decoder_fallback) == (
                "pyav", "decord and PyAV decode its first frame to different images",
            )  # fmt: skip
            assert numbers_in(source.read([0]).rgb).tolist() == [1]

    def test_file_that_decord_cannot_open_is_left_to_pyav(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_coded_video(tmp_path / "a.mp4")
        other = write_coded_video(tmp_path / "other.mp4", range(39))
        probe = probe_video(other)
        monkeypatch.setattr("aot.decoding.decord.probe_video", lambda path, stream: probe)
        with DecordDecoder().open(path) as source:
            assert source.decoder_fallback == "decord counts 40 frames, but 39 are shown"

    def test_reported_problems_may_be_those_of_another_open_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, decoder = write_coded_video(tmp_path / "a.mp4"), DecordDecoder()
        with decoder.open(path) as source:
            assert not decoder.depends_on_others(source)
        monkeypatch.setattr(DecordReader, "has_problem", True)
        with decoder.open(path) as source:
            assert source.decoder == "pyav"
            assert decoder.depends_on_others(source)
        replace_image(monkeypatch, 0, by=5)
        monkeypatch.setattr(DecordReader, "has_problem", False)
        with decoder.open(path) as source:
            assert source.decoder == "pyav"
            assert not decoder.depends_on_others(source)

    def test_other_times_are_left_to_pyav(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(40), [40 * i for i in range(40)])
        probe = probe_video(
            write_coded_video(tmp_path / "b.mp4", range(40), [40 * i + 20 * (i % 7 == 3) for i in range(40)])
        )
        monkeypatch.setattr("aot.decoding.decord.probe_video", lambda path, stream: probe)
        with DecordDecoder().open(path) as source:
            assert source.decoder_fallback == "decord gives its frames other times"


def replace_image(monkeypatch: pytest.MonkeyPatch, frame: int, *, by: int) -> None:
    """Let decord return the image of frame `by` (as encoded) instead of `frame`."""
    from tests.decoding.coded_video import coded_frame

    take = DecordReader.take
    last: list[UInt8Array] = []

    def replaced(self: DecordReader) -> UInt8Array:
        position, image = self.position, take(self)
        if position == frame:
            image = last[-1] if last and by == frame - 1 else coded_frame(by)
        last.append(image)
        return image

    monkeypatch.setattr(DecordReader, "take", replaced)


class TestDamage:
    """What PyAV refuses is refused, although decord returns images for it."""

    @pytest.fixture(autouse=True)
    def _no_readers_of_earlier_tests(self) -> None:
        """See conftest.py; here, most files are damaged."""
        gc.collect()

    KINDS: tuple[tuple[str, str, dict[str, str]], ...] = (
        ("a.mp4", "libx264", CLOSED_GROUPS),
        ("a.ts", "libx264", CLOSED_GROUPS),
        ("a.mkv", "libx265", {"x265-params": "keyint=12:min-keyint=12:bframes=3:log-level=none"}),
        ("a.avi", "mpeg4", {"g": "12"}),
        ("b.mkv", "mpeg2video", {"g": "12"}),
        ("a.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    )

    @pytest.mark.parametrize("num_held", [1000, 15])
    @pytest.mark.parametrize(("name", "codec", "options"), KINDS)
    def test_damaged_packets(
        self,
        tmp_path: Path,
        name: str,
        codec: str,
        options: dict[str, str],
        num_held: int,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        path = write_coded_video(tmp_path / f"good{path_suffix(name)}", codec=codec, options=options, size=(320, 240))
        content, refused = path.read_bytes(), 0
        packets = packets_of(path)
        rng = np.random.default_rng(0)
        for number in range(6):
            damaged = tmp_path / f"{number}{path_suffix(name)}"
            damaged.write_bytes(DAMAGES[number % 3](content, *packets[rng.integers(1, len(packets))], rng))
            expected = outcome_of(PyAVDecoder().open, damaged)
            if isinstance(expected, str):
                refused += 1
                assert isinstance(outcome_of(holding(num_held, 320 * 240 * 3).open, damaged), str), expected
        assert refused or codec in ("libx265", "libvpx-vp9"), "none of the files is damaged for PyAV"
        assert capfd.readouterr().err == ""

    @pytest.mark.parametrize("num_held", [1000, 15])
    @pytest.mark.parametrize("frame", [17, 39])
    def test_damaged_frame_is_named_as_by_pyav(self, tmp_path: Path, frame: int, num_held: int) -> None:
        path = with_damaged_frame(write_coded_video(tmp_path / "a.mp4", size=(320, 240)), frame)
        # On a busy machine, decord's threads may meet the damage before the first frame is taken; PyAV then reads all.
        with holding(num_held, 320 * 240 * 3).open(path) as source:
            assert numbers_in(source.read(source.index[:10]).rgb).tolist() == list(range(10))
            with pytest.raises(DecodeError, match=r"cannot be decoded: .*damaged; expected all 40 frames"):
                source.read(source.index)

    def test_concealed_frame(self, tmp_path: Path) -> None:
        path = with_damaged_frame(write_coded_video(tmp_path / "a.mp4", size=(640, 480), texture=80), 25, 0.9)
        with pytest.raises(DecodeError, match=r"frame 25 .* as damaged"), DecordDecoder().open(path) as source:
            source.read(source.index)

    @pytest.mark.parametrize("num_held", [1000, 25])
    @pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
    def test_size_change(self, tmp_path: Path, name: str, num_held: int) -> None:
        """decord scales the frames of another size, and says nothing."""
        path = write_size_change(tmp_path / name)
        with (
            pytest.raises(DecodeError, match="size changes to 96x64 px at frame 20"),
            holding(num_held).open(path) as source,
        ):
            source.read(source.index)

    def test_a_truncated_file_is_refused(self, tmp_path: Path) -> None:
        path = cut_off(write_coded_video(tmp_path / "a.mkv", range(100), size=(320, 240)), 0.5)
        with pytest.raises(DecodeError, match="the file is damaged or truncated"):
            DecordDecoder().open(path)

    def test_decord_that_fails_leaves_its_piece_to_pyav(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(100))
        with holding(40).open(path) as source:
            assert source.decoder == "decord", source.decoder_fallback
            take = DecordReader.take

            def failing(self: DecordReader) -> UInt8Array:
                if self.position == 40:
                    raise decord_file.ReaderError("out of order")
                return take(self)

            monkeypatch.setattr(DecordReader, "take", failing)
            assert read_in_blocks(source, source.index) == list(range(100))
        assert "frames 36 to 71 are read by pyav: out of order" in caplog.text

    def test_piece_that_cannot_be_cut_is_read_by_pyav(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = write_coded_video(tmp_path / "a.mp4", range(100))
        with holding(40).open(path) as source:

            def cut(self: VideoPieces, start: int, end: int) -> bytes:
                raise decord_file.Uncuttable("no")

            monkeypatch.setattr(VideoPieces, "cut", cut)
            assert read_in_blocks(source, source.index) == list(range(100))


def path_suffix(name: str) -> str:
    return Path(name).suffix


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Position and size of every packet."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def outcome_of(open_video: Callable[[Path], FrameSource], path: Path) -> list[int] | str:
    try:
        with open_video(path) as source:
            return [int(frame.sum()) for block in source.blocks() for frame in block.rgb]
    except DecodeError as error:
        return str(error)


def flip_bit(content: bytes, position: int, size: int, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    damaged[position + int(rng.integers(size // 2, size))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def overwrite_by_zeros(content: bytes, position: int, size: int, rng: np.random.Generator) -> bytes:
    at = position + int(rng.integers(size // 4, size // 2 + 1))
    length = min(200, position + size - at)
    return content[:at] + bytes(length) + content[at + length :]


def overwrite_by_noise(content: bytes, position: int, size: int, rng: np.random.Generator) -> bytes:
    at = position + int(rng.integers(size // 4, size // 2 + 1))
    length = min(60, position + size - at)
    return content[:at] + rng.bytes(length) + content[at + length :]


DAMAGES = (flip_bit, overwrite_by_zeros, overwrite_by_noise)
