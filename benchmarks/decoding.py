"""Seconds and peak memory of the decoders on a long video with a slow consumer; whether both give the same frames.

    python -m benchmarks.decoding long [VIDEO --repeat 10] [--frames 3140] [--pause 0.05]
    python -m benchmarks.decoding compare FOLDER ...
    python -m benchmarks.decoding checks FILE ...
    python -m benchmarks.decoding damage [--files 1254]

`long` writes a video of 856x632 px unless one is given (--repeat concatenates it with itself, without encoding it
again) and reads it in blocks with pauses, as a model does; every reader runs in its own process. `compare` reads every
file below the folders with both decoders and compares all frames. `checks` measures the CPU time that the checks for
damage add to reading a healthy file. `damage` cuts videos of many kinds, overwrites parts by zeros or removes parts,
and counts how many are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import run

WIDTH, HEIGHT = 856, 632

# As blocks of aot at this size.
BLOCK_FRAMES = 10


def read_by_pyav(path: Path, pause: float) -> int:
    from aot.decoding.pyav import PyAVDecoder

    with PyAVDecoder().open(path) as frames:
        return consume((len(block.index) for block in frames.blocks()), pause)


def read_by_verified_decord(path: Path, pause: float) -> int:
    from aot.decoding.decord import DecordDecoder

    with DecordDecoder().open(path) as frames:
        print(f"decoder: {frames.decoder} {frames.decoder_fallback}".rstrip())
        return consume((len(block.index) for block in frames.blocks()), pause)


def read_by_decord_only(path: Path, pause: float) -> int:
    """decord as it is: unverified, without a limit."""
    from aot.decoding.decord_library import load_decord

    decord, _ = load_decord()
    reader = decord.VideoReader(str(path), num_threads=2)

    def blocks() -> Iterator[int]:
        for start in range(0, len(reader), BLOCK_FRAMES):
            frames = [reader.next().asnumpy() for _ in range(min(BLOCK_FRAMES, len(reader) - start))]
            yield len(frames)

    return consume(blocks(), pause)


READERS: dict[str, Callable[[Path, float], int]] = {
    "decoder=pyav": read_by_pyav,
    "decoder=decord": read_by_verified_decord,
    "decord only": read_by_decord_only,
}


def consume(blocks: Iterator[int], pause: float) -> int:
    num_frames = 0
    for number in blocks:
        num_frames += number
        time.sleep(pause)
    return num_frames


def write_long_video(path: Path, num_frames: int) -> Path:
    """Noise that moves over a gradient, in groups of 250 frames, as x264 makes them by default."""
    import av
    import numpy as np

    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    gradient = np.linspace(0, 190, WIDTH, dtype=np.uint8)[None, :, None]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(num_frames):
            image = gradient + np.roll(noise, number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image.astype(np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def concatenate(source: Path, times: int, target: Path) -> Path:
    """Concatenate a video with itself, packet by packet."""
    import av

    offset, stream = 0, None
    with av.open(str(target), "w") as out:
        for _ in range(times):
            end = offset
            with av.open(str(source)) as container:
                video = container.streams.best("video")
                stream = stream or out.add_stream_from_template(video, opaque=True)
                for packet in container.demux(video):
                    if packet.dts is None:
                        continue
                    packet.pts += offset
                    packet.dts += offset
                    end = max(end, packet.pts + (packet.duration or 1))
                    packet.stream = stream
                    out.mux(packet)
            offset = end
    return target


def peak_memory_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def run_long(options: argparse.Namespace) -> None:
    if options.reader:
        import av  # noqa: F401 (importing is not reading)

        from aot.decoding.decord_library import load_decord

        load_decord()
        before = peak_memory_mb()
        started, busy = time.perf_counter(), time.process_time()
        num_frames = READERS[options.reader](options.video, options.pause)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        print(
            f"{options.reader:<16}{num_frames:6} frames {seconds:8.1f} s {busy:8.1f} s of CPU "
            f"{peak_memory_mb():8.0f} MB at peak ({before:.0f} before)",
            flush=True,
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        video = options.video or write_long_video(Path(folder) / "made.mp4", options.frames)
        if options.repeat > 1:
            video = concatenate(video, options.repeat, Path(folder) / "long.mp4")
        for reader in READERS:
            arguments = ["--reader", reader, "--pause", str(options.pause)]
            run([sys.executable, "-m", "benchmarks.decoding", "long", str(video), *arguments], check=True)


def run_compare(folders: list[Path]) -> None:
    """Print a table: whether all frames are equal, the decoder that decoder=decord chose, and the reason."""
    from aot.decoding.decord import DecordDecoder
    from aot.decoding.pyav import PyAVDecoder

    counts = {"decord": 0, "pyav": 0, "refused by both": 0, "different": 0}
    for path in sorted(path for folder in folders for path in folder.rglob("*") if is_video(path)):
        expected, *_ = digest_of(PyAVDecoder().open, path)
        found, decoder, fallback = digest_of(DecordDecoder().open, path)
        name = f"{path.parent.name}/{path.name}"
        result = "identical" if found == expected else "DIFFERENT"
        counts["different" if found != expected else decoder or "refused by both"] += 1
        print(f"{name:<60} {decoder or 'refused':<8} {result:<10} {fallback}", flush=True)
    print(", ".join(f"{number} {what}" for what, number in counts.items()))


def run_checks(paths: list[Path]) -> None:
    """Print the CPU time of the probe with and without the checks for damage, and that of decoding."""
    from aot.decoding import packets, probe
    from aot.decoding.pyav import PyAVDecoder

    checks = probe.refuse_interrupted, packets.hole_finder
    for path in paths:
        seconds = {True: float("inf"), False: float("inf")}
        for is_checked in (True, False) * 3:
            probe.refuse_interrupted, packets.hole_finder = checks if is_checked else (lambda *_: None, lambda _: None)
            seconds[is_checked] = min(seconds[is_checked], seconds_of_probe(path))
        probe.refuse_interrupted, packets.hole_finder = checks
        started = time.process_time()
        with PyAVDecoder().open(path) as source:
            num_frames = sum(len(block.index) for block in source.blocks())
        total = time.process_time() - started
        print(
            f"{path.name:<24}{num_frames:6} frames, CPU ms: probe without checks {seconds[False] * 1000:6.1f}, "
            f"with {seconds[True] * 1000:6.1f}, decoding {total * 1000:8.1f}: "
            f"{(seconds[True] - seconds[False]) / total:+.1%}"
        )


def seconds_of_probe(path: Path, repeats: int = 10) -> float:
    from aot.decoding import probe

    started = time.process_time()
    for _ in range(repeats):
        probe._probe.cache_clear()
        probe.probe_video(path)
    return (time.process_time() - started) / repeats


def is_video(path: Path) -> bool:
    return path.suffix in (".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".gif") and path.is_file()


def digest_of(open_video: Callable, path: Path) -> tuple[str, str, str]:
    """SHA-256 of all times and frames, or the error; the decoder, and why it was chosen."""
    from aot.errors import DecodeError

    digest = hashlib.sha256()
    try:
        with open_video(path) as source:
            digest.update(source.time.tobytes())
            for block in source.blocks():
                digest.update(block.rgb.tobytes())
            return digest.hexdigest(), source.decoder, source.decoder_fallback
    except DecodeError as error:
        return str(error), "", ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    long = commands.add_parser("long", help="seconds and peak memory on a long video")
    long.add_argument("video", type=Path, nargs="?")
    long.add_argument("--frames", type=int, default=3140)
    long.add_argument("--repeat", type=int, default=1)
    long.add_argument("--pause", type=float, default=0.05, help="seconds that the model takes per block")
    long.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    compare = commands.add_parser("compare", help="whether both decoders give the same frames")
    compare.add_argument("folders", type=Path, nargs="+")
    checks = commands.add_parser("checks", help="CPU time of the checks for damage")
    checks.add_argument("files", type=Path, nargs="+")
    damage = commands.add_parser("damage", help="what becomes of randomly damaged files")
    damage.add_argument("--files", type=int, default=1254, help="number of damaged files; default: %(default)s")
    options = parser.parse_args()
    if options.command == "long":
        run_long(options)
    elif options.command == "checks":
        run_checks(options.files)
    elif options.command == "damage":
        from benchmarks.damaged_files import run_damage

        logging.getLogger("aot.decoding").setLevel(logging.ERROR)  # not which frames are left to PyAV
        run_damage(options.files)
    else:
        run_compare(options.folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
