"""A damaged file is refused, or gives exactly the frames of the undamaged one: containers × kinds of damage."""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import av
import numpy as np
import pytest

from aot.decoding.decord import DecordDecoder
from aot.decoding.structure import structure_problem
from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from aot.types import Float64Array, UInt8Array
from benchmarks import damaged_files
from benchmarks.damaged_files import GROUPS, HEVC, NO_B_FRAMES, VPX, Kind
from tests.decoding.coded_video import numbers_in, write_coded_video
from tests.decoding.made_videos import (
    CLUSTER,
    NO_CHECKSUMS,
    TS_PACKET_BYTES,
    cut_at_frame,
    cut_before,
    with_unknown_length,
    without_ts_packets,
)

OPENERS = {"pyav": VideoFile, "decord": DecordDecoder().open}


# 40 frames, the first of each 12 a key frame.
KINDS = {
    "MP4": Kind(".mp4"),
    "MP4, index first": Kind(".mp4", container_options={"movflags": "faststart"}),
    "MP4, HEVC": Kind(".mp4", "libx265", HEVC),
    "Matroska": Kind(".mkv"),
    "Matroska without checksums": Kind(".mkv", container_options=NO_CHECKSUMS),
    "Matroska, live": Kind(".mkv", container_options={"live": "1"}),
    "WebM": Kind(".webm", "libvpx-vp9", VPX),
    "MPEG-TS": Kind(".ts"),
    "MPEG-TS with time codes": Kind(".m2ts"),
    "MPEG-TS, MPEG-2": Kind(".ts", "mpeg2video", GROUPS | {"bf": "2"}),
    "AVI": Kind(".avi", "mpeg4", GROUPS),
    "AVI, H.264": Kind(".avi", options=NO_B_FRAMES),
    "AVI, Motion JPEG": Kind(".avi", "mjpeg", {}, "yuvj420p"),
    "Ogg": Kind(".ogv", "libvpx", VPX),
    "GIF": Kind(".gif", "gif", {}, "rgb8"),
    "FLV": Kind(".flv"),
    "ASF": Kind(".wmv", "msmpeg4", GROUPS),
    "MP4 in fragments": Kind(".mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    "MXF": Kind(".mxf", "mpeg2video", GROUPS),
}  # fmt: skip


def zeroed(content: bytes, start: float, num_bytes: int) -> bytes:
    at = round(len(content) * start)
    return content[:at] + bytes(len(content[at : at + num_bytes])) + content[at + num_bytes :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut at 30 %": lambda content: content[: len(content) * 30 // 100],
    "cut at 60 %": lambda content: content[: len(content) * 60 // 100],
    "cut at 90 %": lambda content: content[: len(content) * 90 // 100],
    "a hole in the middle": lambda content: zeroed(content, 0.5, 4096),
    "a long hole": lambda content: zeroed(content, 0.4, len(content) // 5),
    "zeros at the end": lambda content: zeroed(content, 0.9, len(content)),
    "bytes lost in the middle": lambda content: content[: len(content) // 2] + content[len(content) // 2 + 5000 :],
}


@dataclass(frozen=True)
class Encoded:
    content: bytes
    images: UInt8Array
    time: Float64Array


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Encoded]:
    """The undamaged file of a container, and its frames."""
    made: dict[str, Encoded] = {}

    def encode(kind: str) -> Encoded:
        if kind not in made:
            chosen = KINDS[kind]
            path = write_coded_video(
                tmp_path_factory.mktemp("encoded") / f"a{chosen.suffix}", codec=chosen.codec, options=chosen.options,
                size=(320, 240), container_options=chosen.container_options, pix_fmt=chosen.pix_fmt, texture=80,
            )  # fmt: skip
            with VideoFile(path) as source:
                made[kind] = Encoded(path.read_bytes(), source.read(source.index).rgb, source.time)
            assert numbers_in(made[kind].images).tolist() == list(range(40))
        return made[kind]

    return encode


def outcome(path: Path, decoder: str, complete: Encoded) -> str:
    """What a decoder makes of a damaged file: "refused", "exact", or what is wrong."""
    try:
        with OPENERS[decoder](path) as source:
            images, time = source.read(source.index).rgb, source.time
    except DecodeError as exc:
        return "refused" if str(path) in str(exc) and "ffmpeg -i" in str(exc) else str(exc)
    if len(images) != len(complete.images):
        return f"{len(images)} frames"
    is_wrong = (images != complete.images).any(axis=(1, 2, 3)) | (np.abs(time - complete.time) > 1e-3)
    return f"{np.count_nonzero(is_wrong)} wrong frames" if is_wrong.any() else "exact"


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file(
    tmp_path: Path, encoded: Callable[[str], Encoded], kind: str, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    complete = encoded(kind)
    path = tmp_path / f"a{KINDS[kind].suffix}"
    path.write_bytes(DAMAGE[damage](complete.content))
    assert {decoder: outcome(path, decoder, complete) for decoder in OPENERS} == dict.fromkeys(OPENERS, "refused")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", KINDS)
def test_complete_file_of_each_container(tmp_path: Path, encoded: Callable[[str], Encoded], kind: str) -> None:
    complete = encoded(kind)
    path = tmp_path / f"a{KINDS[kind].suffix}"
    path.write_bytes(complete.content)
    assert {outcome(path, decoder, complete) for decoder in OPENERS} == {"exact"}


def refusal(path: Path) -> str | None:
    """What is wrong with the structure of a file."""
    with av.open(str(path)) as container:
        return structure_problem(path, container.format.name)


class TestAvi:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return write_coded_video(tmp_path / "a.avi", codec="mpeg4", options={"g": "12"}, size=(320, 240), texture=80)

    def test_missing_index(self, path: Path) -> None:
        """All frames are there: FFmpeg finds them without the index."""
        with VideoFile(path) as source:
            images = source.read(source.index).rgb
        cut_before(path, b"idx1", 1.0)
        for open_video in OPENERS.values():
            with open_video(path) as source:
                np.testing.assert_array_equal(source.read(source.index).rgb, images)

    @pytest.mark.parametrize(
        ("counted", "message"), [(39, None), (41, "the header counts 41 frames, but the file has 40")]
    )
    def test_count_in_the_header(self, path: Path, counted: int, message: str | None) -> None:
        write_length(path, counted)
        assert refusal(path) == message

    def test_interrupted_recording(self, path: Path) -> None:
        """It has no count in its header; it is complete if it ends behind a frame."""
        write_length(path, 0)
        cut_at_frame(path, 24)
        path.write_bytes(path.read_bytes()[:-8])  # the header of the chunk
        assert refusal(path) is None
        path.write_bytes(path.read_bytes()[:-2])
        assert (refusal(path) or "").endswith("continues after the end of the file")

    def test_dropped_frames_are_empty_chunks(self, path: Path) -> None:
        path.write_bytes(with_chunks(path, lambda number, data: b"" if number in (5, 39) else data))
        assert refusal(path) is None
        with VideoFile(path) as source:
            assert len(source.index) == 38

    def test_chunks_of_odd_length_without_padding(self, path: Path) -> None:
        content = with_chunks(path, lambda number, data: data + bytes(1 - len(data) % 2), padding=b"")
        path.write_bytes(content)
        assert refusal(path) is None

    def test_palettes_are_no_frames(self, path: Path) -> None:
        content = with_chunks(path, lambda number, data: data)
        at = content.rindex(b"00dc")
        path.write_bytes(content[:at] + b"00pc" + content[at + 4 :])
        assert refusal(path) == "the header counts 40 frames, but the file has 39"


def write_length(path: Path, num_frames: int) -> None:
    """Change the number of frames in the header of the video stream."""
    content = bytearray(path.read_bytes())
    at = content.index(b"vids") + 32
    content[at : at + 4] = struct.pack("<I", num_frames)
    path.write_bytes(content)


def with_chunks(path: Path, change: Callable[[int, bytes], bytes], padding: bytes = b"\0") -> bytes:
    """The AVI file with other data of its frames, without an index."""
    content = path.read_bytes()
    start = content.index(b"movi") + 4
    out, place, number = content[:start], start, 0
    while content[place : place + 4] == b"00dc":
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        data = change(number, content[place + 8 : place + 8 + size])
        out += b"00dc" + struct.pack("<I", len(data)) + data + padding * (len(data) % 2)
        place, number = place + 8 + size + size % 2, number + 1
    return out[: start - 8] + struct.pack("<I", len(out) - start + 4) + out[start - 4 :]


def test_mp4_cut_inside_its_index(tmp_path: Path) -> None:
    """FFmpeg reads the beginning of the tables."""
    path = write_coded_video(tmp_path / "a.mp4")
    cut_before(path, b"udta", 1.0)
    with pytest.raises(DecodeError, match=r"the file ends after \d+ bytes, inside a box that ends at byte \d+"):
        VideoFile(path)


def test_data_behind_the_last_box_of_mp4(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes() + bytes(100))
    assert refusal(path) is None


def test_fragment_that_is_overwritten(tmp_path: Path) -> None:
    """FFmpeg reads the fragments up to there."""
    path = write_coded_video(tmp_path / "a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    content = path.read_bytes()
    at = content.rindex(b"moof") - 4
    path.write_bytes(content[:at] + bytes(8) + content[at + 8 :])
    with pytest.raises(DecodeError, match=f"byte {at} does not begin a box of MP4"):
        VideoFile(path)


class TestOgg:
    @pytest.fixture
    def pages(self, tmp_path: Path) -> list[bytes]:
        path = write_coded_video(tmp_path / "a.ogv", codec="libvpx", options=VPX, size=(320, 240), texture=80)
        return [b"OggS" + page for page in path.read_bytes().split(b"OggS")[1:]]

    def test_lost_page(self, tmp_path: Path, pages: list[bytes]) -> None:
        path = tmp_path / "a.ogv"
        path.write_bytes(b"".join(pages[:4] + pages[5:]))
        assert refusal(path) == f"pages are missing before byte {len(b''.join(pages[:4]))}: page 5 follows page 3"

    def test_lost_last_page(self, tmp_path: Path, pages: list[bytes]) -> None:
        path = tmp_path / "a.ogv"
        path.write_bytes(b"".join(pages[:-1]))
        assert (refusal(path) or "").endswith("without the last page of the video")

    def test_data_behind_the_last_page(self, tmp_path: Path, pages: list[bytes]) -> None:
        path = tmp_path / "a.ogv"
        path.write_bytes(b"".join(pages) + bytes(100))
        assert refusal(path) is None


def test_gif_without_its_trailer(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "a.gif", codec="gif", options={}, pix_fmt="rgb8")
    assert path.read_bytes()[-1:] == b";"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DecodeError, match=r"the file ends after \d+ bytes without the trailer of GIF files: .* trunc"):
        VideoFile(path)


@pytest.mark.parametrize(
    ("mark", "offset", "value"),
    [(b"\x21\xf9\x04", 1, 0xA5), (b"\x00\x2c\0\0\0\0", 11, 0x0D), (b"\x00\x2c\0\0\0\0", 1, 0x2D)],
    ids=["extension", "image", "block"],
)
def test_gif_block_of_no_kind(tmp_path: Path, mark: bytes, offset: int, value: int) -> None:
    path = write_coded_video(tmp_path / "a.gif", codec="gif", options={}, pix_fmt="rgb8")
    content = bytearray(path.read_bytes())
    at = content.index(mark, len(content) // 2)
    content[at + offset] = value
    path.write_bytes(content)
    assert re.fullmatch(r"byte \d+ does not begin a block", structure_problem(path, "gif") or "")


@pytest.mark.parametrize("size", [188, 192, 204])
def test_sizes_of_transport_packets(tmp_path: Path, encoded: Callable[[str], Encoded], size: int) -> None:
    """With a time code before each packet, or a checksum behind it."""
    content, before = encoded("MPEG-TS").content, bytes(4 * (size == 192))
    packets = [content[at : at + TS_PACKET_BYTES] for at in range(0, len(content), TS_PACKET_BYTES)]
    packets = [before + packet + bytes(size - len(before) - len(packet)) for packet in packets]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(packets))
    assert structure_problem(path, "mpegts") is None
    path.write_bytes(b"".join([*packets[:50], packets[50][:100], *packets[51:]]))
    assert structure_problem(path, "mpegts") == f"byte {51 * size} does not begin a packet of {size} bytes"


def test_header_of_asf_that_is_longer_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wmv"
    path.write_bytes(bytes(16) + b"\xff" * 8 + bytes(100))
    assert structure_problem(path, "asf") == (
        f"the file ends after 124 bytes, inside the header that ends at byte {2**64 - 1}"
    )


def test_asf_packets(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "a.wmv", codec="msmpeg4", options={"g": "12"}, size=(320, 240), texture=80)
    content = path.read_bytes()
    start = content.index(b"\x82\0\0", 300)  # the first packet; FFmpeg writes packets of 3200 bytes
    at = start + 5 * 3200
    assert content[at : at + 3] == b"\x82\0\0"
    path.write_bytes(content[:at] + bytes(10) + content[at + 10 :])
    assert structure_problem(path, "asf") == f"byte {at} does not begin a packet of 3200 bytes"
    path.write_bytes(content[:at])
    assert (structure_problem(path, "asf") or "").startswith(f"the file has {at} bytes, but its header lists")


def test_flv_tags(tmp_path: Path) -> None:
    path = write_coded_video(tmp_path / "a.flv")
    content = path.read_bytes()
    starts = [13]
    while starts[-1] < len(content):
        starts.append(starts[-1] + 15 + int.from_bytes(content[starts[-1] + 1 : starts[-1] + 4], "big"))
    at = starts[20]
    path.write_bytes(content[:at] + bytes(4) + content[at + 4 :])
    assert structure_problem(path, "flv") == f"byte {at} does not begin a tag of FLV"
    path.write_bytes(content[: at + 13])
    assert (structure_problem(path, "flv") or "").startswith(f"the file ends after {at + 13} bytes, inside a tag")
    path.write_bytes(content[: at - 4])  # without the length that follows the last tag
    assert structure_problem(path, "flv") is None


class TestMatroska:
    def test_element_of_no_kind(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.mkv", container_options=NO_CHECKSUMS)
        content = bytearray(path.read_bytes())
        at = content.index(b"\xe7\x81", content.rindex(CLUSTER))  # the time of the cluster
        content[at] = 0xA1
        path.write_bytes(content)
        assert refusal(path) == f"byte {at} does not begin an element of Matroska"

    def test_data_behind_the_end(self, tmp_path: Path) -> None:
        path = write_coded_video(tmp_path / "a.mkv")
        path.write_bytes(path.read_bytes() + bytes(100))
        assert refusal(path) is None

    def test_unknown_lengths(self, tmp_path: Path) -> None:
        """As a live stream is sent: neither the file nor its parts have a length."""
        path = with_unknown_length(write_coded_video(tmp_path / "a.mkv", container_options=NO_CHECKSUMS))
        content = bytearray(path.read_bytes())
        at = content.find(CLUSTER)
        while at >= 0:
            num_bytes = 9 - content[at + 4].bit_length()
            content[at + 4 : at + 4 + num_bytes] = (2 ** (7 * num_bytes + 1) - 1).to_bytes(num_bytes, "big")
            at = content.find(CLUSTER, at + 1)
        path.write_bytes(content)
        assert refusal(path) is None
        with VideoFile(path) as source:
            assert numbers_in(source.read(source.index).rgb).tolist() == list(range(40))


def test_file_that_can_no_longer_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_coded_video(tmp_path / "a.mkv")
    reading = Path.open

    def fail(self: Path, *arguments: str) -> IO[Any]:
        if self == path:
            raise OSError(errno.EIO, "Input/output error")
        return reading(self, *arguments)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(DecodeError, match=r"a\.mkv cannot be read as a video: .*reports an error"):
        VideoFile(path)


class TestTransportStreams:
    """FFmpeg marks a packet as damaged if the numbers of its parts have a gap, or if the next one has none."""

    LOST = {
        "the first part of the first key frame": (0, slice(0, 1), "its first packet .* is not a key frame"),
        "the first key frame": (0, slice(None), "its first packet .* is not a key frame"),
        "the rest of the first key frame": (0, slice(10, None), r"frame 0 .* cannot be decoded"),
        "a part of a later key frame": (12, slice(5, 6), r"packets are damaged, or parts of them are lost"),
        "the first part of a later key frame": (12, slice(0, 1), r"packets are damaged, or parts of them are lost"),
        "a later key frame": (12, slice(None), r"1 of 39 packets are damaged, or parts of them are lost"),
        "the last part": (39, slice(-1, None), r"frame 39 .* cannot be decoded: the decoder reports it as damaged"),
    }  # fmt: skip

    @pytest.mark.parametrize("open_video", OPENERS.values(), ids=OPENERS)
    @pytest.mark.parametrize("kind", ["MPEG-TS", "MPEG-TS, MPEG-2"])
    @pytest.mark.parametrize("lost", LOST)
    def test_lost_packets(
        self, tmp_path: Path, encoded: Callable[[str], Encoded], kind: str, lost: str, open_video: Callable
    ) -> None:
        path = tmp_path / "a.ts"
        path.write_bytes(encoded(kind).content)
        frame, part, message = self.LOST[lost]
        without_ts_packets(path, frame, part)
        expected = message if kind == "MPEG-TS" else "damaged|cannot be decoded"
        with pytest.raises(DecodeError, match=expected), open_video(path) as source:
            source.read(source.index)

    def test_cut_between_packets(self, tmp_path: Path, encoded: Callable[[str], Encoded]) -> None:
        """A stream that is cut inside a frame is noticed by the decoder; one that is cut behind a frame is complete."""
        complete = encoded("MPEG-TS")
        path = tmp_path / "a.ts"
        path.write_bytes(complete.content)
        start = cut_at_frame(path, 24).stat().st_size // TS_PACKET_BYTES * TS_PACKET_BYTES
        path.write_bytes(complete.content[:start])
        with VideoFile(path) as source:
            assert len(source.index) == 24
            np.testing.assert_array_equal(source.read(source.index).rgb, complete.images[:24])
        path.write_bytes(complete.content[: start + 3 * TS_PACKET_BYTES])
        assert {outcome(path, decoder, complete) for decoder in OPENERS} == {"refused"}


@pytest.mark.slow
def test_benchmark_counts_the_outcomes_of_damage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = {name: damaged_files.KINDS[name] for name in ("MP4", "AVI, Motion JPEG")}
    monkeypatch.setattr(damaged_files, "KINDS", kinds)

    def flip(content: bytes, rng: np.random.Generator) -> bytes:
        """Change one byte of an image, which H.264 in MP4 may notice, and Motion JPEG does not."""
        at = len(content) // 3
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]

    monkeypatch.setattr(damaged_files, "DAMAGE", (lambda content, rng: content, damaged_files.cut, flip))
    damaged_files.run_damage(6)
    lines = capsys.readouterr().out.splitlines()
    assert "file 5 (AVI, Motion JPEG, flip) gives other frames" in lines
    assert [line.split() for line in lines if line.startswith("AVI")] == [
        ["AVI,", "Motion", "JPEG", "1", "refused", "1", "exact", "1", "other"]
    ]
    assert lines[-1].startswith("6 files: ")
