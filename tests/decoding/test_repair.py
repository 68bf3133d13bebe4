"""The command that an error message advises makes a video that is accepted."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from aot.decoding.decord import DecordDecoder
from aot.decoding.video_file import VideoFile
from aot.errors import DecodeError
from tests.decoding.coded_video import coded_frame, numbers_in, write_coded_video
from tests.decoding.made_videos import (
    cut_off,
    with_damaged_frame,
    with_matrix,
    without_ts_packets,
    write_size_change,
    write_streams,
)

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="no ffmpeg command: `make system` installs it (as root on Debian)"
)


@dataclass(frozen=True)
class Refused:
    """How to make a video that is refused, and what its repair shows."""

    name: str
    make: Callable[[Path], Path]
    message: str
    """Regular expression."""
    num_frames: tuple[int, int]
    """Smallest and largest number of frames of the repaired video."""


def with_shared_times(path: Path) -> Path:
    """40 frames, of which two have the time of the frame before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"x264-params": "bframes=0:keyint=12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for number in range(40):
            frame = av.VideoFrame.from_ndarray(coded_frame(number), format="rgb24")
            frame.pts, frame.time_base = 40 * number, Fraction(1, 1000)
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            if packet.pts in (400, 800):
                packet.pts = packet.dts = packet.pts - 40
            container.mux(packet)
    return path


def textured(path: Path, codec: str = "libx264", **options: str) -> Path:
    return write_coded_video(path, codec=codec, options=options or None, size=(320, 240), texture=80)


def with_hole(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 3000] = bytes(3000)
    path.write_bytes(content)
    return path


REFUSED = {
    "shared times": Refused(
        "a.mkv", with_shared_times, "2 of 40 frames share the presentation time of another", (40, 40)
    ),
    "no times": Refused("a.h264", write_coded_video, "40 of 40 frames have no presentation time", (40, 40)),
    "lost packets": Refused(
        "a.ts", lambda path: without_ts_packets(textured(path), 12, slice(2, 4)),
        r"1 of 40 packets are damaged, or parts of them", (38, 40),
    ),
    "a hole in MPEG-TS": Refused(
        "a.ts", lambda path: with_hole(textured(path)), "does not begin a packet of 188", (30, 40)
    ),
    "a hole in Matroska": Refused(
        "a.mkv", lambda path: with_hole(textured(path)), "its checksum is another one", (30, 40)
    ),
    "an AVI without its end": Refused(
        "a.avi", lambda path: cut_off(textured(path, "mpeg4", g="12"), 0.95),
        "header counts 40 frames, but the file has", (28, 38),
    ),
    "a GIF without its end": Refused(
        "a.gif", lambda path: cut_off(write_coded_video(path, codec="gif", options={}, pix_fmt="rgb8"), 0.7),
        "without the trailer of GIF files", (25, 35),
    ),
    "an Ogg file without its end": Refused(
        "a.ogv", lambda path: cut_off(textured(path, "libvpx", g="12", deadline="realtime"), 0.9),
        "the page at byte .* is damaged", (12, 39),
    ),
    "an MP4 without its end": Refused(
        "a.mp4", lambda path: cut_off(write_coded_video(path, container_options={"movflags": "faststart"}), 0.7),
        "inside a box that ends at byte", (1, 35),
    ),
    "an odd size": Refused(
        "a.webm", lambda path: cut_off(write_streams(path, [((67, 51), "yuv420p", range(40))], "libvpx"), 0.7),
        "bytes, but .* according to its header", (10, 40),
    ),
    "a size that changes": Refused("a.ts", write_size_change, "the size changes to 96x64 px at frame 20", (40, 40)),
    "a rotation by 45 degrees": Refused(
        "a.mp4", lambda path: with_matrix(write_coded_video(path), [0.5**0.5, 0.5**0.5, -(0.5**0.5), 0.5**0.5]),
        "rotate the frames by -?45 degrees", (40, 40),
    ),
    "a damaged frame": Refused(
        "a.mp4", lambda path: with_damaged_frame(textured(path), 30, 0.5), "cannot be decoded: .* damaged", (35, 40)
    ),
}  # fmt: skip


def advised(path: Path) -> list[str]:
    """The command at the end of the message that refuses a video."""
    with pytest.raises(DecodeError) as caught, VideoFile(path) as source:
        source.read(source.index)
    return shlex.split(str(caught.value).partition("re-encode the frames that can be decoded: ")[2])


@needs_ffmpeg
@pytest.mark.parametrize("kind", REFUSED)
def test_the_repaired_video_is_accepted(tmp_path: Path, kind: str) -> None:
    refused = REFUSED[kind]
    path = refused.make(tmp_path / refused.name)
    with pytest.raises(DecodeError, match=refused.message), VideoFile(path) as source:
        source.read(source.index)
    subprocess.run([*advised(path), "-v", "error", "-nostdin"], check=True)
    repaired = tmp_path / f"{path.stem}_repaired.mp4"
    for open_video in (VideoFile, DecordDecoder().open):
        with open_video(repaired) as source:
            assert refused.num_frames[0] <= len(source.index) <= refused.num_frames[1]
            numbers = numbers_in(source.read(source.index).rgb)
            if kind != "a rotation by 45 degrees":
                assert numbers[0] == 0
            assert np.diff(source.time).min() > 0


@needs_ffmpeg
def test_times_of_the_repaired_video(tmp_path: Path) -> None:
    """Frames that share a time are moved by the smallest step; the others keep theirs, however uneven."""
    path = with_shared_times(tmp_path / "a.mkv")
    subprocess.run([*advised(path), "-v", "error", "-nostdin"], check=True)
    expected = np.arange(40) * 0.04
    expected[[10, 20]] = expected[[9, 19]] + 0.001
    with VideoFile(tmp_path / "a_repaired.mp4") as source:
        np.testing.assert_allclose(source.time, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("-a.mp4", "./-a.mp4", "./-a_repaired.mp4"),
        ("b:a.mp4", "./b:a.mp4", "./b:a_repaired.mp4"),
        ("my a.mp4", "'my a.mp4'", "'my a_repaired.mp4'"),
        ("b/c:a.mkv", "b/c:a.mkv", "b/c:a_repaired.mp4"),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, target: str
) -> None:
    """Without `./`, FFmpeg reads a leading dash as an option and text before a colon as a protocol."""
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    write_size_change(tmp_path / "made.mp4").rename(name)
    with pytest.raises(DecodeError) as caught, VideoFile(Path(name)) as video:
        video.read([30])
    command = "-an -fps_mode passthrough -enc_time_base 1:90000 -c:v libx264 -pix_fmt yuv444p -crf 18"
    assert str(caught.value).endswith(
        f"re-encode the frames that can be decoded: ffmpeg -i {source} {command} {target}"
    )
