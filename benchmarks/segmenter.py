"""Compare `segmenter=sam2` with the official SAM 2 video predictor: time, memory, and differences of the logits.

    python -m benchmarks.segmenter                                            # long clips, 256 px
    python -m benchmarks.segmenter --image-size 1024 --frames 20 80           # full size; minutes on a CPU

Every measurement runs in its own process on the CPU, official predictor and aot alternately, `--repeats` times; the
minimum of the times is printed. Both read the same lossless frames and get the same prompts: `--objects` objects,
marked a quarter into the clip, so that both passes are long. The time is from the first frame read to the last mask,
without building the model; peak memory is that of the process (VmHWM, reset after the model is built). The logits are
compared at the size of the source.

Weights are random unless `--checkpoint` is given. Random weights, scaled so that masks change much, amplify rounding
errors from frame to frame, which trained weights do not: therefore the effect of bf16 on the prompt frame, where no
memory is read, is printed separately.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from aot.types import Clip, Prompt, UInt8Array

HEIGHT, WIDTH = 240, 424
SQUARE_PX = 60
RUNS = ("stock fp32", "ours fp32", "stock bf16", "ours bf16")
PAIRS = (("ours fp32", "stock fp32"), ("ours bf16", "stock bf16"), ("ours bf16", "ours fp32"))
# The official model's logit where it finds no object; differences from it are meaningless.
NO_OBJECT = -1000.0


Key = tuple[int, int]
"""(frame, object id)."""


@dataclass(frozen=True)
class Measured:
    """The measurements of one process."""

    seconds: float
    peak_bytes: int
    keys: list[Key]
    """The key of every (H, W) float32 in the file of logits; of equal keys the last one counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[20, 80, 320], help="clip lengths")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--size", default="tiny", help="tiny, small, base_plus, large")
    parser.add_argument("--objects", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="weights of that size; default: random")
    parser.add_argument("--run", help=argparse.SUPPRESS)  # such as "stock fp32": run one measurement
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(asdict(measure(options))))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        compare(options)


def compare(options: argparse.Namespace) -> None:
    """Measure every clip length and print the table."""
    if options.checkpoint is None:
        from tests.segmentation.sam2_models import save_random_weights

        options.checkpoint = save_random_weights(options.folder / "random.pt", options.size, options.image_size)
    print(f"{options.size} at {options.image_size} px, {options.objects} objects, source {WIDTH}x{HEIGHT}")
    print(
        f"{'frames':>6}  {'':24}{'s/frame':>9}{'peak MB':>9}{'max |Δ|':>10}{'mean |Δ|':>10}{'mean |x|':>10}"
        f"{'flipped':>10}  object found by only one"
    )
    peaks: dict[str, list[float]] = {run: [] for run in RUNS}
    for num_frames in sorted(options.frames):
        draw_frames(options.folder / f"{num_frames}", num_frames)
        measured: dict[str, list[Measured]] = {run: [] for run in RUNS}
        for _ in range(options.repeats):
            for run in RUNS:
                measured[run].append(measure_in_child(options, run, num_frames))
        for run, repeats in measured.items():
            peaks[run].append(max(item.peak_bytes for item in repeats) / 1e6)
            seconds = min(item.seconds for item in repeats) / num_frames
            print(f"{num_frames:6}  {run:24}{seconds:9.3f}{peaks[run][-1]:9.0f}", flush=True)
        for run, other in PAIRS:
            keys, other_keys = measured[run][-1].keys, measured[other][-1].keys
            at_prompt = [key for key in keys if key[0] == prompt_frame(num_frames)]
            for name, chosen in ((f"{run} - {other}", keys), ("  on the prompt frame", at_prompt)):
                columns = differences(options.folder, (run, keys), (other, other_keys), chosen)
                print(f"{num_frames:6}  {name:42}{columns}", flush=True)
    first, last = min(options.frames), max(options.frames)
    for run, peak in peaks.items():
        if first < last:
            growth = (peak[-1] - peak[0]) / (last - first)
            print(f"{run}: peak memory grows by {growth:.2f} MB per frame from {first} to {last} frames")


def measure_in_child(options: argparse.Namespace, run: str, num_frames: int) -> Measured:
    command = [
        sys.executable, "-m", "benchmarks.segmenter", "--run", run, "--folder", str(options.folder),
        "--frames", str(num_frames), "--image-size", str(options.image_size), "--size", options.size,
        "--objects", str(options.objects), "--checkpoint", str(options.checkpoint),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{run}, {num_frames} frames: exit code {done.returncode}\n{done.stderr}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace) -> Measured:
    """Segment one clip and write its logits; runs in the child process."""
    predictor, precision = options.run.split()
    (num_frames,) = options.frames
    prompts = prompts_for(num_frames, options.objects)
    prepare = stock if predictor == "stock" else ours
    with logits_file(options.folder, options.run).open("wb") as file:
        segment = prepare(options, precision, options.folder / f"{num_frames}", prompts, file.write)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        started = time.perf_counter()
        keys = list(segment)
        seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return Measured(seconds, 1024 * peak, keys)


def stock(
    options: argparse.Namespace, precision: str, folder: Path, prompts: list[Prompt], write: Callable[[bytes], object]
) -> Iterator[Key]:
    """Run the official predictor as its notebook does; yields the key of every mask whose logits were written."""
    import torch

    from tests.segmentation.sam2_models import stock_video_predictor

    predictor = stock_video_predictor(options.checkpoint, options.size, options.image_size)

    def segment() -> Iterator[Key]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            state = predictor.init_state(str(folder))
            for prompt in prompts:
                predictor.add_new_points_or_box(state, prompt.frame, prompt.object_id, box=prompt.box)
            for reverse in (False, True):
                for frame, object_ids, logits in predictor.propagate_in_video(state, reverse=reverse):
                    for object_id, mask_logits in zip(object_ids, logits):
                        write(mask_logits[0].float().numpy().tobytes())
                        yield frame, object_id

    return segment()


def ours(
    options: argparse.Namespace, precision: str, folder: Path, prompts: list[Prompt], write: Callable[[bytes], object]
) -> Iterator[Key]:
    """Run `segmenter=sam2`; yields the same as `stock`."""
    from aot.decoding import open_source
    from aot.segmentation.sam2 import Sam2Segmenter, segmenter

    model = Sam2Segmenter(
        size=options.size,
        checkpoint=options.checkpoint,
        precision=precision,
        device="cpu",
        image_size=options.image_size,
    )
    model._loaded()
    on_host = segmenter._on_host

    def recorded(logits):  # type: ignore[no-untyped-def]
        write(logits.float().numpy().tobytes())
        return on_host(logits)

    segmenter._on_host = recorded

    def segment() -> Iterator[Key]:
        with open_source(Clip("clip", folder, fps=25.0)) as frames:
            for block in model.segment(frames, prompts, on_object_error=lambda object_id, error: sys.exit(str(error))):
                for object_id in block.object_id:
                    yield int(block.index[0]), int(object_id)

    return segment()


def differences(folder: Path, one: tuple[str, list[Key]], other: tuple[str, list[Key]], chosen: list[Key]) -> str:
    """Format the differences of the logits x of two runs, each a name and its keys, on the chosen masks."""
    first, second = (
        np.memmap(logits_file(folder, run), np.float32, "r", shape=(len(keys), HEIGHT, WIDTH))
        for run, keys in (one, other)
    )
    rows, other_rows = ({tuple(key): row for row, key in enumerate(keys)} for _, keys in (one, other))
    if set(rows) != set(other_rows):
        sys.exit(f"{one[0]} and {other[0]} gave masks of different frames or objects")
    largest, means, sizes, flipped, num_disagreements = 0.0, [], [], [], 0
    for key in {tuple(key) for key in chosen}:
        a, b = first[rows[key]], second[other_rows[key]]
        flipped.append(float(((a > 0) != (b > 0)).mean()))
        num_disagreements += (a.max() > NO_OBJECT) != (b.max() > NO_OBJECT)
        if a.max() > NO_OBJECT and b.max() > NO_OBJECT:
            apart = np.abs(a - b)
            largest = max(largest, float(apart.max()))
            means.append(apart.mean())
            sizes.append(np.abs(b).mean())
    mean, size = (float(np.mean(values)) if values else 0.0 for values in (means, sizes))
    return f"{largest:10.2g}{mean:10.2g}{size:10.2g}{np.mean(flipped):10.3%}  {num_disagreements} of {len(flipped)}"


def logits_file(folder: Path, run: str) -> Path:
    return folder / f"{run.replace(' ', '_')}.f32"


def draw_frames(folder: Path, num_frames: int) -> None:
    """Write frames of a textured square moving over a textured background.

    PNG data in files named .jpg: the official predictor reads no other names, and JPEG would not be lossless.
    """
    rng = np.random.default_rng(0)
    background = smooth_texture(rng, HEIGHT, WIDTH, 0, 120)
    square = smooth_texture(rng, SQUARE_PX, SQUARE_PX, 120, 255)
    folder.mkdir()
    for frame in range(num_frames):
        image = background.copy()
        x, y = corner(frame)
        image[y : y + SQUARE_PX, x : x + SQUARE_PX] = square
        Image.fromarray(image).save(folder / f"{frame:05d}.jpg", format="PNG", compress_level=1)


def corner(frame: int) -> tuple[int, int]:
    """(x, y) of the square's upper left corner."""
    turn = 2 * np.pi * frame / 80
    return int((WIDTH - SQUARE_PX) * (0.5 + 0.4 * np.cos(turn))), int((HEIGHT - SQUARE_PX) * (0.5 + 0.4 * np.sin(turn)))


def smooth_texture(rng: np.random.Generator, height: int, width: int, low: int, high: int) -> UInt8Array:
    coarse = rng.integers(low, high, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def prompt_frame(num_frames: int) -> int:
    return num_frames // 4


def prompts_for(num_frames: int, num_objects: int) -> list[Prompt]:
    """Prompts for the square and for boxes of the background."""
    frame = prompt_frame(num_frames)
    x, y = corner(frame)
    boxes = [
        (x, y, x + SQUARE_PX, y + SQUARE_PX),
        *((10 + 50 * n, 20, 50 + 50 * n, 70) for n in range(num_objects - 1)),
    ]
    return [Prompt(number, frame, box=tuple(map(float, box))) for number, box in enumerate(boxes, start=1)]


if __name__ == "__main__":
    main()
