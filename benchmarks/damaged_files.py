"""What decoding makes of randomly damaged videos; the command is `python -m benchmarks.decoding damage`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from aot.decoding.decord import DecordDecoder
from aot.errors import DecodeError
from aot.types import Float64Array, UInt8Array
from tests.decoding.coded_video import write_coded_video

# The lengths of damage are drawn evenly on a logarithmic scale: short damage is harder to notice.
ZEROED_BYTES = (512, 2**16)
REMOVED_BYTES = (1, 20_000)

SIZE, NUM_FRAMES = (320, 240), 48
# Noise over the frames, so that a video has a few hundred kilobytes and the damage is inside images.
TEXTURE = 80

GROUPS = {"g": "12"}
VPX = GROUPS | {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
HEVC = {"x265-params": "keyint=12:min-keyint=12:log-level=none", "preset": "ultrafast"}
NO_B_FRAMES = {"x264-params": "keyint=12:min-keyint=12:bframes=0:scenecut=0"}


@dataclass(frozen=True)
class Kind:
    """How a video is encoded; options=None: H.264 with B-frames, a key frame every 12 frames."""

    suffix: str
    codec: str = "libx264"
    options: dict[str, str] | None = None
    pix_fmt: str = "yuv420p"
    container_options: dict[str, str] = field(default_factory=dict)


KINDS = {
    "MP4": Kind(".mp4"),
    "MP4, HEVC": Kind(".mp4", "libx265", HEVC),
    "MP4, MPEG-4": Kind(".mp4", "mpeg4", GROUPS),
    "MP4 in fragments": Kind(".mp4", container_options={"movflags": "frag_keyframe+empty_moov"}),
    "QuickTime, Motion JPEG": Kind(".mov", "mjpeg", {}, "yuvj420p"),
    "Matroska": Kind(".mkv"),
    "Matroska without checksums": Kind(".mkv", container_options={"write_crc32": "0"}),
    "Matroska, FFV1": Kind(".mkv", "ffv1", GROUPS),
    "WebM, VP8": Kind(".webm", "libvpx", VPX),
    "WebM, VP9": Kind(".webm", "libvpx-vp9", VPX),
    "MPEG-TS": Kind(".ts"),
    "MPEG-TS, MPEG-2": Kind(".ts", "mpeg2video", GROUPS | {"bf": "2"}),
    "AVI, MPEG-4": Kind(".avi", "mpeg4", GROUPS),
    "AVI, H.264": Kind(".avi", options=NO_B_FRAMES),
    "AVI, Motion JPEG": Kind(".avi", "mjpeg", {}, "yuvj420p"),
    "Ogg, VP8": Kind(".ogv", "libvpx", VPX),
    "GIF": Kind(".gif", "gif", {}, "rgb8"),
    "FLV": Kind(".flv"),
    "FLV, Sorenson": Kind(".flv", "flv", GROUPS),
    "ASF": Kind(".wmv", "msmpeg4", GROUPS),
    "MXF": Kind(".mxf", "mpeg2video", GROUPS),
    "NUT": Kind(".nut", "mpeg4", GROUPS),
}


@dataclass(frozen=True)
class Complete:
    """An undamaged video."""

    content: bytes
    images: UInt8Array
    time: Float64Array


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(1, len(content)))]


def zero(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), _length(ZEROED_BYTES, rng)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def remove(content: bytes, rng: np.random.Generator) -> bytes:
    start, length = int(rng.integers(len(content))), _length(REMOVED_BYTES, rng)
    return content[:start] + content[start + length :]


def _length(limits: tuple[int, int], rng: np.random.Generator) -> int:
    return round(np.exp(rng.uniform(*np.log(limits))))


DAMAGE: Sequence[Callable[[bytes, np.random.Generator], bytes]] = (cut, zero, remove)


def run_damage(num_files: int) -> None:
    """Damage videos of every kind, and print how many are refused, still exact, or silently other.

    Args:
        num_files: damaged files, evenly of all kinds; the same number gives the same files.
    """
    counts: dict[str, Counter[str]] = {name: Counter() for name in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        complete = cache(lambda name: _encode(KINDS[name], Path(folder)))
        for number in range(num_files):
            name = list(KINDS)[number % len(KINDS)]
            damage = DAMAGE[number // len(KINDS) % len(DAMAGE)]
            path = Path(folder) / f"damaged{KINDS[name].suffix}"
            path.write_bytes(damage(complete(name).content, np.random.default_rng(number)))
            outcome = _outcome(path, complete(name))
            counts[name][outcome] += 1
            if outcome == "other":
                print(f"file {number} ({name}, {damage.__name__}) gives other frames", flush=True)
    for name, found in counts.items():
        print(f"{name:<28}{found['refused']:6} refused {found['exact']:6} exact {found['other']:6} other")
    total = sum(counts.values(), Counter())
    print(f"{total.total()} files: {total['refused']} refused, {total['exact']} exact, {total['other']} other")


def _encode(kind: Kind, folder: Path) -> Complete:
    path = write_coded_video(
        folder / f"complete{kind.suffix}", range(NUM_FRAMES), codec=kind.codec, options=kind.options, size=SIZE,
        container_options=kind.container_options, pix_fmt=kind.pix_fmt, texture=TEXTURE,
    )  # fmt: skip
    images, time = _read(path)
    return Complete(path.read_bytes(), images, time)


def _read(path: Path) -> tuple[UInt8Array, Float64Array]:
    with DecordDecoder().open(path) as source:
        return source.read(source.index).rgb, source.time


def _outcome(path: Path, complete: Complete) -> str:
    try:
        images, time = _read(path)
    except DecodeError:
        return "refused"
    is_equal = np.array_equal(images, complete.images) and np.array_equal(time, complete.time)
    return "exact" if is_equal else "other"
