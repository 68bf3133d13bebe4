"""Measure aot on a GPU: parity with the CPU, SAM 2 and CoTracker3 beside their official packages, and a complete run.

    python -m benchmarks.gpu                              # all parts
    python -m benchmarks.gpu --parts parity trackers      # some of them
    python -m benchmarks.gpu --full                       # also every size of SAM 2, compiled
    python -m benchmarks.gpu --device cpu --small         # try the script without a GPU; the times mean nothing

All weights are random, because neither speed nor memory depends on them, so that nothing must be downloaded. Frames are
textured squares of 854x480 that move. `peak` is the peak of the device memory allocated by torch, model included.
Times exclude building the model and one short clip as a warm-up; they include copies to the device and back. A part
that fails prints its traceback, the others still run, and the exit code is 1.

The comparison with the official CoTracker needs its package (CC-BY-NC 4.0, on no registry): installed, or in the folder
given by --upstream.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aot import load
from aot.segmentation.sam2 import Sam2Segmenter, segmenter
from aot.system.devices import tf32
from aot.tracking.cotracker3 import load_model, track_offline, track_online
from aot.types import Prompt, UInt8Array
from benchmarks.tracker import unpack_upstream
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import save_random_weights, stock_video_predictor, stock_warnings
from tests.synthetic import write_video
from tests.tracking.cotracker3.weights import golden_weights

HEIGHT, WIDTH = 480, 854
SQUARE_PX = 64
SIZES = ("tiny", "small", "base_plus", "large")
NUM_SUPPORT = 36
# The model's logit where it finds no object.
NO_OBJECT = -1000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="small models and few frames")
    parser.add_argument("--full", action="store_true", help="compile every size of SAM 2, not only the first")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, help="sizes of SAM 2; default: all")
    parser.add_argument("--upstream", type=Path, help="folder that contains the package `cotracker`")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device on this machine; run this on a machine with a GPU")
    options.sizes = options.sizes or (SIZES[:1] if options.small else SIZES)
    options.frames = 6 if options.small else 48
    options.image_size = 128 if options.small else 1024
    print_machine(options.device)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        for part in options.parts:
            print(f"\n## {part}", flush=True)
            started = time.perf_counter()
            try:
                PARTS[part](options)
            except Exception:  # noqa: BLE001 (a failed part must not stop the others)
                traceback.print_exc(file=sys.stdout)
                failed.append(part)
            print(f"({time.perf_counter() - started:.0f} s)", flush=True)
            free(options.device)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def print_machine(device: str) -> None:
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, {torch.get_num_threads()} threads")
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        print(f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, CUDA {torch.version.cuda}")


def parity(options: argparse.Namespace) -> None:
    """Differences of the device's results from the CPU's in fp32."""
    num_frames, num_points = (6, 8) if options.small else (24, 100)
    frames, queries = draw_frames(num_frames), draw_queries(num_frames, num_points)
    print(f"CoTracker3, {num_frames} frames, {num_points} points; differences from fp32 on the CPU in px of the source")
    print(f"{'mode':10}{'precision':12}{'max px':>10}{'mean px':>10}")
    for mode in ("offline", "online"):
        expected = track(options, "cpu", mode, "fp32", frames, queries).xy
        for precision in ("fp32", "bf16", "fp16"):
            found = track(options, options.device, mode, precision, frames, queries).xy
            distance = np.linalg.norm(found - expected, axis=-1)
            print(f"{mode:10}{precision:12}{distance.max():10.5f}{distance.mean():10.5f}", flush=True)
    size = options.sizes[0]
    frames, prompts = draw_frames(4), draw_prompts(2)
    weights = random_weights(options, size)
    print(f"SAM 2 {size}, 4 frames, 2 objects, random weights; differences of the logits from fp32 on the CPU")
    print(f"{'precision':12}{'max':>10}{'mean':>10}{'max, prompt frame':>19}{'pixels that differ':>20}")
    expected_logits = segment(options, weights, size, "cpu", "fp32", frames, prompts)
    for precision in ("fp32", "bf16"):
        logits = segment(options, weights, size, options.device, precision, frames, prompts)
        print(f"{precision:12}{differences(logits, expected_logits)}", flush=True)


def segmenters(options: argparse.Namespace) -> None:
    """Frames per second and memory of every size of SAM 2, with 1, 4 and 16 objects."""
    frames = draw_frames(options.frames)
    print(f"SAM 2 at {options.image_size} px, {options.frames} frames of {WIDTH}x{HEIGHT}, precision auto")
    print(f"{'size':12}{'objects':>8}{'frames/s':>10}{'peak GB':>9}")
    for size in options.sizes:
        weights = random_weights(options, size)
        model = Sam2Segmenter(size=size, checkpoint=weights, device=options.device, image_size=options.image_size)
        run_segmenter(model, frames[:3], draw_prompts(1))
        for num_objects in (1, 4, 16):
            with measured(options.device) as result:
                run_segmenter(model, frames, draw_prompts(num_objects))
            print(
                f"{size:12}{num_objects:8}{len(frames) / result['seconds']:10.1f}{result['peak_gb']:9.2f}", flush=True
            )
        del model
        free(options.device)


def official_segmenter(options: argparse.Namespace) -> None:
    """SAM 2 beside the official predictor: time, memory, logits."""
    frames, prompts = draw_frames(options.frames), draw_prompts(4)
    size = options.sizes[-1]
    weights = random_weights(options, size)
    print(
        f"SAM 2 {size}, {len(frames)} frames, {len(prompts)} objects; "
        "differences of the logits from the official predictor"
    )
    print(
        f"{'predictor':12}{'precision':12}{'frames/s':>10}{'peak GB':>9}"
        f"{'max':>10}{'mean':>10}{'max, prompt frame':>19}{'pixels that differ':>20}"
    )
    for precision in ("bf16", "fp32"):
        predictor = stock_video_predictor(weights, size, options.image_size).to(options.device)
        run_official(options, predictor, precision, frames[:3], prompts)
        with measured(options.device) as stock:
            expected = run_official(options, predictor, precision, frames, prompts)
        print(f"{'official':12}{precision:12}{len(frames) / stock['seconds']:10.1f}{stock['peak_gb']:9.2f}", flush=True)
        del predictor
        free(options.device)
        model = Sam2Segmenter(
            size=size, checkpoint=weights, precision=precision, device=options.device, image_size=options.image_size
        )
        run_segmenter(model, frames[:3], prompts)
        with measured(options.device) as ours:
            run_segmenter(model, frames, prompts)
        print(f"{'aot':12}{precision:12}{len(frames) / ours['seconds']:10.1f}{ours['peak_gb']:9.2f}", end="")
        del model
        free(options.device)
        print(differences(segment(options, weights, size, options.device, precision, frames, prompts), expected))


def trackers(options: argparse.Namespace) -> None:
    """Frames per second and memory of CoTracker3 for several numbers of points."""
    num_frames = options.frames
    frames = draw_frames(num_frames)
    numbers = (8,) if options.small else (50, 200, 1000)
    print(f"CoTracker3, {num_frames} frames of {WIDTH}x{HEIGHT}, all queries on frame 0")
    print(f"{'mode':10}{'precision':12}{'points':>8}{'frames/s':>10}{'peak GB':>9}")
    for mode in ("offline", "online"):
        for precision in ("fp32", "bf16"):
            model = load_model(golden_weights(mode=mode), mode=mode, device=options.device, precision=precision)
            predict = track_offline if mode == "offline" else track_online
            predict(model, frames, query_points=draw_queries(1, 8))
            for num_points in numbers:
                queries = draw_queries(1, num_points)
                with measured(options.device) as result:
                    predict(model, frames, query_points=queries)
                print(
                    f"{mode:10}{precision:12}{num_points:8}{num_frames / result['seconds']:10.1f}"
                    f"{result['peak_gb']:9.2f}",
                    flush=True,
                )
            del model
            free(options.device)


def official_tracker(options: argparse.Namespace) -> None:
    """CoTracker3 offline beside the official predictor: time, memory, tracks."""
    num_points = 8 if options.small else 200
    frames, queries = draw_frames(options.frames), draw_queries(1, num_points)
    source = options.upstream or unpack_upstream(options.folder)
    if source:
        sys.path.insert(0, str(source))
    from cotracker.predictor import CoTrackerPredictor

    predictor = CoTrackerPredictor(checkpoint=None).to(options.device).eval()
    predictor.model.load_state_dict(dict(golden_weights()))
    queries_on_device = torch.from_numpy(queries)[None].to(options.device)

    def official(network: Any) -> Any:
        video = torch.from_numpy(frames).to(options.device).permute(0, 3, 1, 2)[None].float()
        with torch.inference_mode():
            return network(video, queries=queries_on_device)[0][0].cpu().numpy()

    print(f"CoTracker3 offline, {len(frames)} frames, {num_points} points and {NUM_SUPPORT} support points")
    print(f"{'predictor':12}{'precision':12}{'frames/s':>10}{'peak GB':>9}{'max px':>10}{'mean px':>10}")
    official(predictor)
    with measured(options.device) as result:
        expected = official(predictor)
    print(f"{'official':12}{'fp32':12}{len(frames) / result['seconds']:10.1f}{result['peak_gb']:9.2f}", flush=True)
    del predictor
    free(options.device)
    for precision in ("fp32", "bf16"):
        model = load_model(golden_weights(), device=options.device, precision=precision)
        track_offline(model, frames, query_points=queries, support_grid=True)
        with measured(options.device) as result:
            found = track_offline(model, frames, query_points=queries, support_grid=True)
        distance = np.linalg.norm(found.xy - expected, axis=-1)
        print(
            f"{'aot':12}{precision:12}{len(frames) / result['seconds']:10.1f}{result['peak_gb']:9.2f}"
            f"{distance.max():10.5f}{distance.mean():10.5f}",
            flush=True,
        )


def compiled(options: argparse.Namespace) -> None:
    """Frames per second of SAM 2 with `segmenter.compile=true`."""
    frames, prompts = draw_frames(options.frames), draw_prompts(1)
    print(f"{'size':12}{'compile':>10}{'frames/s':>10}{'first frames s':>16}")
    for size in options.sizes if options.full else options.sizes[:1]:
        weights = random_weights(options, size)
        for compile in (False, True):
            model = Sam2Segmenter(
                size=size, checkpoint=weights, device=options.device, image_size=options.image_size, compile=compile
            )
            with measured(options.device) as first:
                run_segmenter(model, frames[:3], prompts)
            with measured(options.device) as result:
                run_segmenter(model, frames, prompts)
            print(
                f"{size:12}{compile!s:>10}{len(frames) / result['seconds']:10.1f}{first['seconds']:16.1f}", flush=True
            )


def complete_run(options: argparse.Namespace) -> None:
    """`python -m aot.run` on drawn videos: the seconds of every stage and in all."""
    size, num_clips = options.sizes[-1], 2 if options.small else 6
    videos = options.folder / "videos"
    for number in range(num_clips):
        write_video(videos / f"clip{number}.mp4", draw_frames(options.frames, seed=number), fps=25)
    boxes = {
        f"clip{number}": {"objects": [{"id": 1, "frame": 0, "box": [20, 20, 84, 84]}]} for number in range(num_clips)
    }
    (videos / "prompts.yaml").write_text(json.dumps({"clips": boxes}))
    tracker = options.folder / "scaled_offline.pth"
    torch.save(dict(golden_weights()), tracker)
    command = [
        sys.executable, "-m", "aot.run", "dataset=videos", f"dataset.root={videos}",
        "segmenter=sam2", f"segmenter.size={size}", f"segmenter.checkpoint={random_weights(options, size)}",
        f"segmenter.image_size={options.image_size}", f"segmenter.device={options.device}",
        "tracker=cotracker3", f"tracker.checkpoint={tracker}", f"tracker.device={options.device}",
        f"output.root={options.folder / 'outputs'}",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, stderr=subprocess.STDOUT, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"aot.run ended with exit code {done.returncode}")
    stages: Counter[str] = Counter()
    for path in (options.folder / "outputs").rglob("*.h5"):
        stages.update(json.loads(load(path).attributes["seconds"]))
    print(f"{num_clips} clips of {options.frames} frames, {seconds:.1f} s in all; sums over the clips:")
    print(", ".join(f"{stage} {value:.2f} s" for stage, value in stages.items()))


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "parity": parity,
    "trackers": trackers,
    "official_tracker": official_tracker,
    "run": complete_run,
    "segmenters": segmenters,
    "official_segmenter": official_segmenter,
    "compiled": compiled,
}


def track(
    options: argparse.Namespace, device: str, mode: Any, precision: Any, frames: UInt8Array, queries: np.ndarray
) -> Any:
    model = load_model(golden_weights(mode=mode), mode=mode, device=device, precision=precision)
    predict = track_offline if mode == "offline" else track_online
    tracks = predict(model, frames, query_points=queries)
    del model
    free(device)
    return tracks


def run_segmenter(model: Sam2Segmenter, frames: UInt8Array, prompts: Sequence[Prompt]) -> None:
    num_masks = sum(block.masks.shape[1] for block in model.segment(ArraySource(frames), prompts, on_object_error=fail))
    if num_masks != len(frames) * len(prompts):
        raise RuntimeError(f"{num_masks} masks of {len(frames)} frames and {len(prompts)} objects")


def segment(
    options: argparse.Namespace,
    weights: Path,
    size: Any,
    device: Any,
    precision: Any,
    frames: UInt8Array,
    prompts: Sequence[Prompt],
) -> dict[tuple[int, int], np.ndarray]:
    """The logits by (frame, object id), in a run of their own because copying them takes time."""
    model = Sam2Segmenter(
        size=size, checkpoint=weights, precision=precision, device=device, image_size=options.image_size
    )
    recorded: list[np.ndarray] = []
    on_host = segmenter._on_host

    def record(logits: torch.Tensor) -> Any:
        recorded.append(logits.float().cpu().numpy())
        return on_host(logits)

    segmenter._on_host = record
    try:
        keys = [
            (int(block.index[0]), int(object_id))
            for block in model.segment(ArraySource(frames), prompts, on_object_error=fail)
            for object_id in block.object_id
        ]
    finally:
        segmenter._on_host = on_host
    return dict(zip(keys, recorded))


def run_official(
    options: argparse.Namespace, predictor: Any, precision: str, frames: UInt8Array, prompts: Sequence[Prompt]
) -> dict[tuple[int, int], np.ndarray]:
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for number, image in enumerate(frames):
            # The official loader requires names of JPEG files, but detects the format by the content.
            Image.fromarray(image).save(Path(folder) / f"{number:05d}.jpg", format="PNG", compress_level=1)
        stack.enter_context(stock_warnings())
        stack.enter_context(torch.inference_mode())
        if precision == "bf16":
            stack.enter_context(torch.autocast(options.device, dtype=torch.bfloat16))
            stack.enter_context(tf32(True))
        state = predictor.init_state(folder)
        for prompt in prompts:
            predictor.add_new_points_or_box(state, prompt.frame, prompt.object_id, box=prompt.box)
        return {
            (frame, object_id): mask[0].float().cpu().numpy()
            for frame, object_ids, masks in predictor.propagate_in_video(state)
            for object_id, mask in zip(object_ids, masks)
        }


def differences(found: dict[tuple[int, int], np.ndarray], expected: dict[tuple[int, int], np.ndarray]) -> str:
    if set(found) != set(expected):
        raise RuntimeError("masks of different frames or objects")
    apart = {key: np.abs(found[key] - expected[key]) for key in found if expected[key].max() > NO_OBJECT}
    differ = np.mean([(found[key] > 0) != (expected[key] > 0) for key in found])
    at_prompt = max(float(values.max()) for (frame, _), values in apart.items() if frame == 0)
    largest = max(float(values.max()) for values in apart.values())
    mean = np.mean([values.mean() for values in apart.values()])
    return f"{largest:10.2g}{mean:10.2g}{at_prompt:19.2g}{differ:20.4%}"


def random_weights(options: argparse.Namespace, size: str) -> Path:
    path: Path = options.folder / f"sam2.1_hiera_{size}.pt"
    return path if path.exists() else save_random_weights(path, size, options.image_size)


def draw_frames(num_frames: int, seed: int = 0) -> UInt8Array:
    """(T, H, W, 3): a textured square that moves over a texture."""
    rng = np.random.default_rng(seed)
    background = np.kron(rng.integers(0, 120, (HEIGHT // 8, WIDTH // 7, 3), np.uint8), np.ones((8, 7, 1), np.uint8))
    square = np.kron(rng.integers(120, 255, (SQUARE_PX // 8,) * 2 + (3,), np.uint8), np.ones((8, 8, 1), np.uint8))
    rgb = np.repeat(background[np.newaxis], num_frames, axis=0)
    for t in range(num_frames):
        x = 20 + 3 * t
        rgb[t, 20 : 20 + SQUARE_PX, x : x + SQUARE_PX] = square
    return rgb


def draw_queries(num_frames: int, num_points: int) -> np.ndarray:
    """(N, 3) query points: frame, x, y; spread over the frame."""
    rng = np.random.default_rng(0)
    t = rng.integers(0, num_frames, num_points)
    return np.column_stack([t, rng.uniform(0, [WIDTH - 1, HEIGHT - 1], (num_points, 2))]).astype(np.float32)


def draw_prompts(num_objects: int) -> list[Prompt]:
    """Boxes on frame 0: the square first, then parts of the background."""
    corners = [(20 + 100 * (n % 8), 20 + 110 * (n // 8)) for n in range(num_objects)]
    return [Prompt(n, 0, box=(x, y, x + SQUARE_PX, y + SQUARE_PX)) for n, (x, y) in enumerate(corners, start=1)]


@contextmanager
def measured(device: str) -> Iterator[dict[str, float]]:
    """Seconds and the peak of device memory of the block; the peak is 0 on the CPU."""
    result: dict[str, float] = {"peak_gb": 0.0}
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield result
    if device == "cuda":
        torch.cuda.synchronize()
        result["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    result["seconds"] = time.perf_counter() - started


def free(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def fail(object_id: int, error: Exception) -> None:
    raise RuntimeError(f"object {object_id}: {error}")


if __name__ == "__main__":
    main()
