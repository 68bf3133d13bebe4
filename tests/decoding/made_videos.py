"""Unusual and damaged videos, made from encoded frames and by changing bytes of the file."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import ExifTags, Image

from aot.types import UInt8Array
from tests.decoding.coded_video import CLOSED_GROUPS, FPS, coded_frame, one_thread_of, write_coded_video

TS_PACKET_BYTES = 188
CLUSTER = b"\x1f\x43\xb6\x75"  # identifier of the parts of a Matroska file
NO_CHECKSUMS = {"write_crc32": "0"}  # for FFmpeg's Matroska
_TS_VIDEO_PID = 256  # FFmpeg numbers the streams from here on

EVERY_40_MS = [40 * i for i in range(40)]
UNEVEN_MS = [40 * i + 15 * (i % 3) + 400 * (i // 10) for i in range(40)]
# MPEG-TS counts 90,000 per second in 33 bits: this recording passes from the highest number to 0.
BEFORE_WRAP_MS = [2**33 // 90 - 500 + 40 * i for i in range(40)]


@dataclass(frozen=True)
class Made:
    """How to make a video, and what a player shows of it."""

    make: Callable[[Path], Path]
    """Writes the video to a path."""
    suffix: str
    size: tuple[int, int] = (64, 48)
    """Width and height as displayed, px."""
    turns: int = 0
    """Counter-clockwise rotations by 90 degrees for display."""
    is_mirrored: bool = False
    """Whether the upper and the lower side are exchanged before that."""
    numbers: Sequence[int] = range(40)
    """The numbers that the displayed frames encode."""
    times: Sequence[float] | None = None
    """Presentation times in s; None: every 40 ms from 0 on."""


def marked_frame(number: int, size: tuple[int, int]) -> UInt8Array:
    """(H, W, 3): a coded frame with colours in its upper left quarter, so that turned and grey images are noticed."""
    frame = coded_frame(number, *size)
    frame[: size[1] // 2, : size[0] // 2, 2] //= 4
    frame[: size[1] // 4, : size[0] // 4, 1] //= 2
    return frame


def write_streams(
    path: Path,
    streams: Iterable[tuple[tuple[int, int], str, Sequence[int]]],
    codec: str = "libx264",
    *,
    audio_seconds: int = 0,
    are_default: bool = False,
) -> Path:
    """Encode a file with several streams: (width, height), pixel format and numbers of each video, and silence."""
    with av.open(str(path), "w") as container:
        videos = []
        for size, pix_fmt, numbers in streams:
            options = CLOSED_GROUPS if codec == "libx264" else one_thread_of(codec)
            stream = container.add_stream(codec, rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
            if are_default:
                stream.disposition = Disposition.default.value
            videos.append((stream, size, numbers))
        audio = container.add_stream("aac", rate=8000, layout="mono") if audio_seconds else None
        for stream, size, numbers in videos:
            for packet in _encoded(stream, size, numbers):
                container.mux(packet)
        if audio is not None:
            for start in range(0, 8000 * audio_seconds, 1000):
                container.mux(audio.encode(_silence(start)))
            container.mux(audio.encode(None))
    return path


def write_with_cover(path: Path, *, has_video: bool = True) -> Path:
    """An MP4 file with an image of 128x96 px as its cover, and with 40 frames or silence."""
    with av.open(str(path), "w") as container:
        cover = container.add_stream("png", rate=FPS)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "rgb24"
        cover.disposition = Disposition.attached_pic.value
        packets = _encoded(cover, (128, 96), [7])
        if has_video:
            stream = container.add_stream("libx264", rate=FPS, options=CLOSED_GROUPS)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            packets += _encoded(stream, (64, 48), range(40))
        else:
            audio = container.add_stream("aac", rate=8000, layout="mono")
            packets += audio.encode(_silence(0)) + audio.encode(None)
        for packet in packets:
            container.mux(packet)
    return path


def _silence(start: int) -> av.AudioFrame:
    """1000 samples at 8000 per second, from a sample on."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, start, Fraction(1, 8000)
    return frame


def write_turned_in_part(path: Path, turns: int, *, is_mirrored: bool = False) -> Path:
    """40 H.264 frames whose key frames say that the frames are mirrored, and turned counter-clockwise."""
    plain = write_coded_video(path.with_name(f"plain_{path.stem}.mp4"))
    # SEI message "display orientation" (H.264, D.1.26): flips, angle, valid for later frames too.
    bits = f"0{int(is_mirrored)}0{turns << 14:016b}01001"
    message = bytes([6, 47, 3]) + int(bits, 2).to_bytes(3, "big") + b"\x80"
    with av.open(str(plain)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                content = len(message).to_bytes(4, "big") + message if packet.is_keyframe else b""
                changed = av.Packet(content + bytes(packet))
                changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                changed.duration, changed.is_keyframe, changed.stream = packet.duration, packet.is_keyframe, stream
                container.mux(changed)
    return path


def write_interlaced(path: Path, num_grey: int = 0) -> Path:
    """Encode 40 frames of MPEG-2, 192x128 px, in one group; the first ones without colours."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=FPS, options={"flags": "+ildct+ilme", "g": "100", "q": "2"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        colours = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
        for number in range(40):
            image = np.roll(colours, number, axis=0).repeat(8, axis=0).repeat(16, axis=1)
            if number < num_grey:
                image[...] = image[..., :1]
            image[1::2] //= 2
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            for packet in stream.encode(frame):
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def write_with_exif(path: Path, orientation: int) -> Path:
    """40 JPEGs with EXIF metadata, as the frames of a video; the orientation is 1 for upright, up to 8."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(40):
            jpeg = io.BytesIO()
            Image.fromarray(marked_frame(number, (64, 48))).save(jpeg, "JPEG", exif=exif, quality=95)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, FPS)
            packet.is_keyframe = True
            container.mux(packet)
    return path


def write_size_change(path: Path, sizes: Sequence[tuple[int, int]] = ((64, 48), (96, 64))) -> Path:
    """20 frames of each size in one stream, with valid time stamps."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=FPS, options=CLOSED_GROUPS)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for part, size in enumerate(sizes):
            encoder: Any = av.CodecContext.create("libx264", "w")
            encoder.width, encoder.height, encoder.pix_fmt = *size, "yuv420p"
            encoder.time_base, encoder.framerate, encoder.options = Fraction(1, FPS), FPS, CLOSED_GROUPS
            for packet in _encoded(encoder, size, range(20 * part, 20 * part + 20), start=20 * part):
                packet.stream = stream
                container.mux(packet)
    return path


def _encoded(encoder: Any, size: tuple[int, int], numbers: Sequence[int], start: int = 0) -> list[Any]:
    packets = []
    for position, number in enumerate(numbers, start):
        frame = av.VideoFrame.from_ndarray(marked_frame(number, size), format="rgb24")
        frame.pts, frame.time_base = position, Fraction(1, FPS)
        packets += encoder.encode(frame)
    return packets + encoder.encode(None)


# The display matrix of a track header (x' = a x + c y and y' = b x + d y) as a, b, c, d.
TURNS = {1: (0, -1, 1, 0), 2: (-1, 0, 0, -1), 3: (0, 1, -1, 0)}
MIRRORINGS = {"left-right": (-1, 0, 0, 1), "up-down": (1, 0, 0, -1), "transpose": (0, 1, 1, 0), "other": (0, -1, -1, 0)}


def with_matrix(path: Path, matrix: Sequence[float]) -> Path:
    """Change an MP4 file so that players turn and mirror its images by a matrix a, b, c, d."""
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 2**16) for value in matrix)
    at = content.index(b"tkhd") + 44
    content[at : at + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(content)
    return path


def rotated(path: Path, turns: int) -> Path:
    """Change an MP4 file so that players turn its images counter-clockwise by 90 degrees `turns` times."""
    return with_matrix(path, TURNS[turns])


def write_with_matrix(path: Path, matrix: int, pix_fmt: str = "yuv420p") -> Path:
    """Three frames whose colours are described as converted by a matrix (AVColorSpace of FFmpeg)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        stream.codec_context.colorspace = matrix
        for packet in _encoded(stream, (64, 48), range(3)):
            container.mux(packet)
    return path


def write_narrow(path: Path, pixel_aspect: Fraction, matrix: Sequence[float] | None = None) -> Path:
    """40 frames of 64x48 px whose pixels are not square, turned and mirrored by a display matrix (MP4)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CLOSED_GROUPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        for packet in _encoded(stream, (64, 48), range(40)):
            container.mux(packet)
    return path if matrix is None else with_matrix(path, matrix)


def write_by_old_encoder(path: Path, seed: int) -> Path:
    """36 textured frames of 4:4:4 video, which name as their encoder a version of x264 with a different 4:4:4.

    The first packet contains the version. The decoder returns other images if it has not seen it. The frames are not
    of that version, so that decoding fails for some textures.
    """
    texture = np.random.default_rng(seed).integers(0, 255, (50, 66, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=CLOSED_GROUPS | {"crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 66, 50, "yuv444p"
        for number in range(36):
            rgb = np.maximum(coded_frame(number, 66, 50), np.roll(texture, number, axis=0)) // 2
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    at = content.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(content[:at] + b"150" + content[at + 3 :])
    return path


def without_duration_tags(path: Path) -> Path:
    """Rename the tags of a Matroska file that give the duration of each stream."""
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOM"))
    return path


def cut_off(path: Path, fraction: float) -> Path:
    """Keep only the beginning of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * fraction)])
    return path


def cut_at_frame(path: Path, frame: int) -> Path:
    """Keep the beginning of a file, up to the packet of a frame."""
    with av.open(str(path)) as container:
        start = sorted((packet.pts, packet.pos) for packet in container.demux(video=0) if packet.size)[frame][1]
    path.write_bytes(path.read_bytes()[:start])
    return path


def cut_before(path: Path, mark: bytes, fraction: float) -> Path:
    """Keep the beginning of a file, up to the last place of some bytes in it."""
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(mark, 0, round(len(content) * fraction))])
    return path


def with_open_end(path: Path) -> Path:
    """Change an MP4 file whose data come last so that they have no length, but continue up to the end of the file."""
    content = path.read_bytes()
    at = content.index(b"mdat") - 4
    path.write_bytes(content[:at] + bytes(4) + content[at + 4 :])
    return path


def with_unknown_length(path: Path) -> Path:
    """Change a Matroska file as if it were written to where its length cannot be entered later."""
    content = path.read_bytes()
    at = content.index(b"\x18\x53\x80\x67") + 4
    path.write_bytes(content[:at] + b"\x01" + b"\xff" * 7 + content[at + 8 :])
    return path


def with_damaged_frame(path: Path, frame: int, fraction: float = 0.5) -> Path:
    """Overwrite the end of the packet of a frame, from a fraction of its length on."""
    with av.open(str(path)) as container:
        packets = sorted((packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    _, start, size = packets[frame]
    content = bytearray(path.read_bytes())
    begin = start + round(size * fraction)
    content[begin : start + size] = b"\xa5" * (start + size - begin)
    path.write_bytes(content)
    return path


def without_ts_packets(path: Path, frame: int, part: slice) -> Path:
    """Remove a part of the MPEG-TS packets of a frame, counted in decoding order."""
    content = path.read_bytes()
    pieces = [content[at : at + TS_PACKET_BYTES] for at in range(0, len(content), TS_PACKET_BYTES)]
    video = [number for number, piece in enumerate(pieces) if (piece[1] & 31) << 8 | piece[2] == _TS_VIDEO_PID]
    starts = [place for place, number in enumerate(video) if pieces[number][1] & 64]
    bounds = [*starts, len(video)]
    lost = set(video[bounds[frame] : bounds[frame + 1]][part])
    path.write_bytes(b"".join(piece for number, piece in enumerate(pieces) if number not in lost))
    return path


def _one(size: tuple[int, int], pix_fmt: str, codec: str = "libx264") -> Callable[[Path], Path]:
    return lambda path: write_streams(path, [(size, pix_fmt, range(40))], codec)


def _displayed_by(
    matrix: Sequence[float], size: tuple[int, int] = (64, 48), pix_fmt: str = "yuv420p"
) -> Callable[[Path], Path]:
    return lambda path: with_matrix(_one(size, pix_fmt)(path), matrix)


def _timed(times_ms: Sequence[int], **options: Any) -> Callable[[Path], Path]:
    return lambda path: write_coded_video(path, range(40), times_ms, **options)


READABLE = {
    "turned by 90 degrees": Made(lambda path: rotated(_one((64, 48), "yuv420p")(path), 1), ".mp4", (48, 64), turns=1),
    "turned by 180 degrees": Made(lambda path: rotated(_one((64, 48), "yuv420p")(path), 2), ".mp4", turns=2),
    "turned by 180 degrees, no black frame": Made(
        lambda path: rotated(write_streams(path, [((64, 48), "yuv420p", range(1, 41))]), 2), ".mp4", turns=2,
        numbers=range(1, 41),
    ),
    "turned by 270 degrees": Made(lambda path: rotated(_one((64, 48), "yuv420p")(path), 3), ".mov", (48, 64), turns=3),
    "turned, of odd size": Made(lambda path: rotated(_one((67, 51), "yuv444p")(path), 1), ".mp4", (51, 67), turns=1),
    "turned by 89.6 degrees": Made(_displayed_by((0.007, -1, 1, 0.007)), ".mp4", (48, 64), turns=1),
    "matrix of zeros": Made(_displayed_by((0, 0, 0, 0)), ".mp4"),
    "mirrored": Made(_displayed_by(MIRRORINGS["left-right"]), ".mp4", turns=2, is_mirrored=True),
    "upside down and mirrored": Made(_displayed_by(MIRRORINGS["up-down"]), ".mov", is_mirrored=True),
    "transposed": Made(_displayed_by(MIRRORINGS["transpose"]), ".mp4", (48, 64), turns=3, is_mirrored=True),
    "transposed the other way": Made(
        _displayed_by(MIRRORINGS["other"], (67, 51), "yuv444p"), ".mp4", (51, 67), turns=1, is_mirrored=True
    ),
    "4:4:4": Made(_one((64, 48), "yuv444p"), ".mp4"),
    "4:4:4 of odd size": Made(_one((67, 51), "yuv444p"), ".mkv", (67, 51)),
    "odd size, MPEG-2": Made(_one((67, 51), "yuv420p", "mpeg2video"), ".mkv", (67, 51)),
    "odd size, VP8": Made(_one((67, 51), "yuv420p", "libvpx"), ".webm", (67, 51)),
    "odd size, VP9": Made(_one((67, 51), "yuv420p", "libvpx-vp9"), ".webm", (67, 51)),
    "10 bits": Made(_one((64, 48), "yuv420p10le"), ".mp4"),
    "lossless RGB": Made(_one((67, 51), "bgr0", "ffv1"), ".mkv", (67, 51)),
    "GIF": Made(_one((64, 48), "rgb8", "gif"), ".gif"),
    "Motion JPEG": Made(_one((64, 48), "yuvj420p", "mjpeg"), ".avi"),
    "Motion JPEG with EXIF": Made(lambda path: write_with_exif(path, 1), ".mkv"),
    "Motion JPEG turned by EXIF": Made(lambda path: write_with_exif(path, 3), ".mkv", turns=2),
    "uneven times": Made(_timed(UNEVEN_MS), ".mkv", times=np.divide(UNEVEN_MS, 1000).tolist()),
    "late start": Made(_timed([10_000 + t for t in EVERY_40_MS]), ".mp4", times=[10 + t / 1000 for t in EVERY_40_MS]),
    "negative times": Made(_timed(BEFORE_WRAP_MS), ".ts", times=[(t - 2**33 / 90) / 1000 for t in BEFORE_WRAP_MS]),
    "frames before the start": Made(
        _timed([t - 200 for t in EVERY_40_MS]), ".mp4", numbers=range(5, 40), times=[t / 1000 for t in EVERY_40_MS[:35]]
    ),
    "longer than an hour": Made(_timed([100_000 * i for i in range(40)]), ".mkv", times=[100 * i for i in range(40)]),
    "a small stream first": Made(
        lambda path: write_streams(path, [((32, 16), "yuv420p", (1, 2)), ((64, 48), "yuv420p", range(40))]), ".mkv"
    ),
    "two equal streams": Made(
        lambda path: write_streams(path, [((64, 48), "yuv420p", range(40)), ((64, 48), "yuv420p", range(100, 140))]),
        ".mp4",
    ),
    "two equal streams, the first with fewer bits": Made(
        lambda path: write_streams(
            path, [((64, 48), "yuv420p", [0] * 40), ((64, 48), "yuv420p", range(100, 140))], are_default=True
        ), ".mp4", numbers=[0] * 40,
    ),
    "a cover first": Made(lambda path: write_with_cover(path), ".mp4"),
    "audio longer than video": Made(
        lambda path: write_streams(path, [((64, 48), "yuv420p", range(40))], audio_seconds=5), ".mkv"
    ),
    "audio longer than video, lengths unknown": Made(
        lambda path: without_duration_tags(
            write_streams(path, [((64, 48), "yuv420p", range(40))], audio_seconds=5)
        ), ".mkv",
    ),
}  # fmt: skip
