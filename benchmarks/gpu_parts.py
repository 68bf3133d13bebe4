"""What `benchmarks.gpu` measures: each part yields rows of its table."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

import aot
from aot.paths import RunPaths
from aot.runs.timing import worker_times
from aot.segmentation.sam2 import Sam2Segmenter, leaving
from aot.system.devices import describe_device, tf32
from aot.tracking.cotracker3 import load_model, track_offline, track_online
from aot.types import Prompt, UInt8Array
from benchmarks.gpu import Options, Part, Row
from benchmarks.tracker import unpack_upstream
from tests.fakes import ArraySource
from tests.segmentation.sam2_models import save_random_weights, stock_video_predictor, stock_warnings
from tests.synthetic import write_video
from tests.tracking.cotracker3.weights import golden_weights

REPOSITORY = Path(__file__).resolve().parents[1]
HEIGHT, WIDTH = 480, 854
SQUARE_PX = 64
NUM_SUPPORT = 36
MAX_DIFFERENCE_PX = 0.05
"""Between the tracks of the GPU and those of the CPU, both in fp32."""
NO_OBJECT = -1000.0
"""No logit is above it where the model finds no object."""


def has_cuda() -> bool:
    return torch.cuda.is_available()


def machine(options: Options) -> Iterator[Row]:
    """The device and the version of torch."""
    device = describe_device(torch.device(options.device))
    memory = f", {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB" if options.device == "cuda" else ""
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads"
    yield Row("machine", result=f"{device}{memory}, {versions}")


def gpu_tests(options: Options) -> Iterator[Row]:
    """The tests that are marked as needing a GPU."""
    files = [path for path in sorted((REPOSITORY / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *map(str, files)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    summary = (done.stdout.strip() or done.stderr.strip()).splitlines()[-1].strip("= ")
    yield Row("tests that need a GPU", result=summary, problem=summary if done.returncode else "")


def parity(options: Options) -> Iterator[Row]:
    """Differences of the device's results from those of the CPU in fp32."""
    num_frames, num_points = (6, 8) if options.is_small else (24, 100)
    frames, queries = draw_frames(num_frames), draw_queries(num_frames, num_points)
    for mode in ("offline", "online"):
        expected = track(options, mode, "fp32", frames, queries, device="cpu")
        for precision in ("fp32", "bf16"):
            found = track(options, mode, precision, frames, queries)
            largest = float(np.linalg.norm(found - expected, axis=-1).max())
            is_bad = precision == "fp32" and not largest <= MAX_DIFFERENCE_PX
            yield Row(
                f"CoTracker3 {mode}", f"{num_points} points", precision, reference="CPU, fp32",
                result=tracks_apart(found, expected),
                problem=f"differs by {largest:.4f} px from the CPU, expected at most {MAX_DIFFERENCE_PX}" * is_bad,
            )  # fmt: skip
    size = options.sizes[0]
    frames, prompts = draw_frames(4), draw_prompts(2)
    expected_logits = segment(options, size, "cpu", "fp32", frames, prompts)
    for precision in ("fp32", "bf16"):
        logits = segment(options, size, options.device, precision, frames, prompts)
        yield Row(
            f"SAM 2 {size}", "2 objects", precision, reference="CPU, fp32", result=logits_apart(logits, expected_logits)
        )


def complete_run(options: Options) -> Iterator[Row]:
    """`python -m aot.run` on drawn videos, with overlays and the report."""
    size, num_clips = options.sizes[-1], 2 if options.is_small else 6
    videos = options.folder / "videos"
    for number in range(num_clips):
        write_video(videos / f"clip{number}.mp4", draw_frames(options.num_frames, seed=number), fps=25)
    prompts = {"clips": {"*": {"objects": [{"id": 1, "frame": 0, "box": [20, 20, 84, 84]}]}}}
    (videos / "prompts.yaml").write_text(json.dumps(prompts))
    tracker = options.folder / "scaled_offline.pth"
    torch.save(dict(golden_weights()), tracker)
    command = [
        sys.executable, "-m", "aot.run", "dataset=videos", f"dataset.root={videos}",
        "segmenter=sam2", f"segmenter.size={size}", f"segmenter.checkpoint={random_weights(options, size)}",
        f"segmenter.image_size={options.image_size}", f"segmenter.device={options.device}",
        "tracker=cotracker3", f"tracker.checkpoint={tracker}", f"tracker.device={options.device}",
        f"tracker.resolution={list(options.resolution)}",
        "launcher=local", "launcher.workers=1", f"output.root={options.folder / 'outputs'}",
    ]  # fmt: skip
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"aot.run ended with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    (root,) = (options.folder / "outputs" / "videos").iterdir()
    (worker,) = worker_times(RunPaths(root)).by_worker.values()
    yield Row(
        f"run: SAM 2 {size}, CoTracker3", f"{num_clips} clips", "auto, fp32",
        num_clips * options.num_frames / worker.seconds,
        peak_of_results(sorted(root.glob("clips/*.h5"))),
        result=f"device busy {worker.busy_fraction:.0%} of {worker.seconds:.1f} s; the command took {seconds:.1f} s",
    )  # fmt: skip


def trackers(options: Options) -> Iterator[Row]:
    """Speed and memory of CoTracker3 for several numbers of points."""
    frames = draw_frames(options.num_frames)
    for mode in ("offline", "online"):
        for precision in ("fp32", "bf16"):
            model = build_tracker(options, mode, precision)
            predict = track_offline if mode == "offline" else track_online
            predict(model, frames, query_points=draw_queries(1, 8))
            for num_points in (8,) if options.is_small else (50, 200, 1000):
                queries = draw_queries(1, num_points)
                with measured(options.device) as result:
                    predict(model, frames, query_points=queries)
                yield result.row(f"CoTracker3 {mode}", f"{num_points} points", precision, len(frames))
            del model
            free(options.device)


def official_tracker(options: Options) -> Iterator[Row]:
    """CoTracker3 offline beside the official predictor."""
    num_points = 8 if options.is_small else 200
    frames, queries = draw_frames(options.num_frames), draw_queries(1, num_points)
    source = options.upstream or unpack_upstream(options.folder)
    if source:
        sys.path.append(str(source))  # last, because the wheel with the package has an old `sam2`, too
    from cotracker.predictor import CoTrackerPredictor

    predictor = CoTrackerPredictor(checkpoint=None).to(options.device).eval()
    predictor.model.load_state_dict(dict(golden_weights()))
    queries_on_device = torch.from_numpy(queries)[None].to(options.device)

    def official(network: Any) -> Any:
        video = torch.from_numpy(frames).to(options.device).permute(0, 3, 1, 2)[None].float()
        with torch.inference_mode():
            return network(video, queries=queries_on_device)[0][0].cpu().numpy()

    points = f"{num_points} + {NUM_SUPPORT}"
    official(predictor)
    with measured(options.device) as result:
        expected = official(predictor)
    yield result.row("official CoTracker3 offline", points, "fp32", len(frames))
    del predictor
    free(options.device)
    for precision in ("fp32", "bf16"):
        model = load_model(golden_weights(), device=options.device, precision=precision)
        track_offline(model, frames, query_points=queries, support_grid=True)
        with measured(options.device) as result:
            found = track_offline(model, frames, query_points=queries, support_grid=True)
        apart = tracks_apart(found.xy, expected)
        yield result.row("CoTracker3 offline", points, precision, len(frames), "official CoTracker3", apart)


def segmenters(options: Options) -> Iterator[Row]:
    """Speed and memory of every size of SAM 2, with 1, 4 and 16 objects."""
    frames = draw_frames(options.num_frames)
    for size in options.sizes:
        model = build_segmenter(options, size)
        run_segmenter(model, frames[:3], draw_prompts(1))
        for num_objects in (1, 4) if options.is_small else (1, 4, 16):
            with measured(options.device) as result:
                run_segmenter(model, frames, draw_prompts(num_objects))
            yield result.row(f"SAM 2 {size}", counted_objects(num_objects), model.precision_name, len(frames))
        del model
        free(options.device)


def official_segmenter(options: Options) -> Iterator[Row]:
    """SAM 2 beside the official predictor."""
    frames, prompts = draw_frames(options.num_frames), draw_prompts(4)
    size, objects = options.sizes[-1], counted_objects(len(prompts))
    for precision in ("bf16", "fp32"):
        predictor = stock_video_predictor(random_weights(options, size), size, options.image_size).to(options.device)
        run_official(options, predictor, precision, frames[:3], prompts)
        with measured(options.device) as stock:
            expected = run_official(options, predictor, precision, frames, prompts)
        yield stock.row(f"official SAM 2 {size}", objects, precision, len(frames))
        del predictor
        free(options.device)
        model = build_segmenter(options, size, precision)
        run_segmenter(model, frames[:3], prompts)
        with measured(options.device) as ours:
            run_segmenter(model, frames, prompts)
        del model
        free(options.device)
        apart = logits_apart(segment(options, size, options.device, precision, frames, prompts), expected)
        yield ours.row(f"SAM 2 {size}", objects, precision, len(frames), "official SAM 2", apart)


def compiled(options: Options) -> Iterator[Row]:
    """Speed and memory of SAM 2 with `segmenter.compile=true`."""
    frames, prompts = draw_frames(options.num_frames), draw_prompts(1)
    for size in options.sizes if options.is_full else options.sizes[:1]:
        model = build_segmenter(options, size, compile=True)
        with measured(options.device) as first:
            run_segmenter(model, frames[:3], prompts)
        with measured(options.device) as result:
            run_segmenter(model, frames, prompts)
        compiling = f"first 3 frames {first.seconds:.0f} s"
        yield result.row(
            f"SAM 2 {size}, compiled", counted_objects(1), model.precision_name, len(frames), "", compiling
        )
        del model
        free(options.device)


PARTS: dict[str, Part] = {
    "machine": machine,
    "tests": gpu_tests,
    "parity": parity,
    "run": complete_run,
    "trackers": trackers,
    "official_tracker": official_tracker,
    "segmenters": segmenters,
    "official_segmenter": official_segmenter,
    "compiled": compiled,
}


def build_tracker(options: Options, mode: Any, precision: Any, device: str | None = None) -> Any:
    return load_model(
        golden_weights(mode=mode), mode=mode, device=device or options.device, precision=precision,
        resolution=options.resolution,
    )  # fmt: skip


def track(
    options: Options, mode: str, precision: str, frames: UInt8Array, queries: np.ndarray, *, device: str | None = None
) -> np.ndarray:
    """(T, N, 2): positions in px."""
    model = build_tracker(options, mode, precision, device)
    predict = track_offline if mode == "offline" else track_online
    xy: np.ndarray = predict(model, frames, query_points=queries).xy
    del model
    free(options.device)
    return xy


def build_segmenter(
    options: Options, size: Any, precision: Any = "auto", device: Any = None, compile: bool = False
) -> Sam2Segmenter:
    return Sam2Segmenter(
        size=size, checkpoint=random_weights(options, size), precision=precision, device=device or options.device,
        image_size=options.image_size, compile=compile,
    )  # fmt: skip


def run_segmenter(model: Sam2Segmenter, frames: UInt8Array, prompts: Sequence[Prompt]) -> None:
    num_masks = sum(block.masks.shape[1] for block in model.segment(ArraySource(frames), prompts, on_object_error=fail))
    if num_masks != len(frames) * len(prompts):
        raise RuntimeError(f"{num_masks} masks of {len(frames)} frames and {len(prompts)} objects")


def segment(
    options: Options, size: str, device: str, precision: str, frames: UInt8Array, prompts: Sequence[Prompt]
) -> dict[tuple[int, int], np.ndarray]:
    """The logits by (frame, object id), in a run of their own because copying them takes time."""
    model = build_segmenter(options, size, precision, device)
    recorded: list[np.ndarray] = []
    binary = leaving.binary

    def record(logits: torch.Tensor) -> torch.Tensor:
        recorded.extend(logits.float().cpu().numpy())
        return binary(logits)

    leaving.binary = record
    try:
        keys = [
            (int(block.index[0]), int(object_id))
            for block in model.segment(ArraySource(frames), prompts, on_object_error=fail)
            for object_id in block.object_id
        ]
    finally:
        leaving.binary = binary
    free(device)
    return dict(zip(keys, recorded, strict=True))


def run_official(
    options: Options, predictor: Any, precision: str, frames: UInt8Array, prompts: Sequence[Prompt]
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


def tracks_apart(found: np.ndarray, expected: np.ndarray) -> str:
    distance = np.linalg.norm(found - expected, axis=-1)
    return f"at most {distance.max():.5f} px, mean {distance.mean():.5f} px"


def logits_apart(found: dict[tuple[int, int], np.ndarray], expected: dict[tuple[int, int], np.ndarray]) -> str:
    if set(found) != set(expected):
        raise RuntimeError(f"masks of {len(found)} frames and objects, expected the same {len(expected)} as before")
    largest = max(float(np.abs(found[key] - expected[key]).max()) for key in found if expected[key].max() > NO_OBJECT)
    differ = np.mean([(found[key] > 0) != (expected[key] > 0) for key in found])
    return f"logits at most {largest:.2g}, {differ:.4%} of the pixels"


def peak_of_results(paths: Sequence[Path]) -> float | None:
    """The peak of device memory in GB that result files record; None: they record none."""
    recorded = [json.loads(aot.load(path).attributes.get("peak_device_bytes", "{}")) for path in paths]
    peaks = [peak for stages in recorded for peak in stages.values()]
    return max(peaks) / 1e9 if peaks else None


def random_weights(options: Options, size: str) -> Path:
    path = options.folder / f"sam2.1_hiera_{size}.pt"
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


def counted_objects(count: int) -> str:
    return f"{count} object{'s' * (count > 1)}"


class Measured:
    """The seconds of a block, and its peak of device memory in GB: None on the CPU."""

    seconds: float
    peak_gb: float | None = None

    def row(self, what: str, size: str, precision: str, num_frames: int, reference: str = "", result: str = "") -> Row:
        return Row(what, size, precision, num_frames / self.seconds, self.peak_gb, reference, result)


@contextmanager
def measured(device: str) -> Iterator[Measured]:
    """Measure a block; the result is complete after it."""
    result = Measured()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    yield result
    if device == "cuda":
        torch.cuda.synchronize()
        result.peak_gb = torch.cuda.max_memory_allocated() / 1e9
    result.seconds = time.perf_counter() - started


def free(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def fail(object_id: int, error: Exception) -> None:
    raise RuntimeError(f"object {object_id}: {error}")
