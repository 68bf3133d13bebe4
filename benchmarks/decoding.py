"""Read a video block by block, as a slow model does, with the decoder of aot and with decord: seconds and peak memory.

    pip install decord2
    python benchmarks/decoding.py VIDEO [--repeat 10] [--pause 0.13]

Every reader runs in its own process. --repeat first concatenates the video with itself (without encoding it again),
which shows what grows with the length.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK_FRAMES = 13


def read_by_aot(path: Path, pause: float) -> int:
    from aot.decoding import open_source
    from aot.types import Clip

    num_frames = 0
    with open_source(Clip("clip", path)) as frames:
        for block in frames.blocks():
            num_frames += len(block.index)
            time.sleep(pause)
    return num_frames


def read_by_decord(path: Path, pause: float) -> int:
    import decord

    reader = decord.VideoReader(str(path), ctx=decord.cpu(0))
    num_frames = 0
    for start in range(0, len(reader), BLOCK_FRAMES):
        block = reader.get_batch(range(start, min(start + BLOCK_FRAMES, len(reader)))).asnumpy()
        num_frames += len(block)
        time.sleep(pause)
    return num_frames


READERS = {"aot": read_by_aot, "decord": read_by_decord}


def concatenate(source: Path, times: int, target: Path) -> Path:
    """Concatenate a video with itself, packet by packet."""
    import av

    offset, stream = 0, None
    with av.open(str(target), "w") as out:
        for _ in range(times):
            end = offset
            with av.open(str(source)) as container:
                video = container.streams.best("video")
                stream = stream or out.add_stream_from_template(video)
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.13, help="seconds that the model takes per block of 13 frames")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        started = time.perf_counter()
        num_frames = READERS[options.reader](options.video, options.pause)
        seconds = time.perf_counter() - started
        print(f"{options.reader:<8}{num_frames:6} frames {seconds:8.1f} s {peak_memory_mb():8.0f} MB at peak")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        video = options.video
        if options.repeat > 1:
            video = concatenate(video, options.repeat, Path(folder) / "long.mp4")
        for reader in READERS:
            command = [sys.executable, __file__, str(video), "--reader", reader, "--pause", str(options.pause)]
            subprocess.run(command, check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
