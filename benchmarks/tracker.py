"""Compare the CoTracker3 and TAPNext of aot with the authors' packages: time, memory, and differences of the tracks.

    python benchmarks/tracker.py                                    # T=48, N=600; upstream, fp32, bf16 in turn
    python benchmarks/tracker.py --frames 149 --points 66
    python benchmarks/tracker.py --memory 75 149 314 1000 --points 66 --iters 1
    python benchmarks/tracker.py --frames 8 --points 336 --engines tapnext-upstream tapnext-fp32 --upstream FOLDER

Every measurement runs in its own process; the engines alternate within a round, so that a machine that slows down
affects all of them. All get the same synthetic weights, the same frames of 512x384 and the same queries. N includes the
36 support points that both predictors of CoTracker3 add; TAPNext has none, and tracks 36 fewer. `GB` is the peak above
what the process used when frames and model were ready, including upstream's float copy of the frames; `all GB` is the
peak of the whole process (on CUDA: of the device) from then on. `CPU s` is processor time of all threads: with
--threads 1 it is more reliable than wall-clock time on a machine that is used by others. The package `cotracker`
(CC-BY-NC 4.0) is imported if it is installed, otherwise extracted from a wheel that contains a copy, into a temporary
folder. The package `tapnet` (Apache-2.0) is not on PyPI: --upstream names a folder that contains it and `einops`.

Engines: upstream, and fp32, bf16, fp16 of aot, each with the suffix `-lean` for the plan of the OOM ladder's second
rung or `-compile` for torch.compile; the prefix `online-` selects CoTracker3's online predictor, `tapnext-` TAPNext,
whose `tapnext-upstream-bf16` runs in autocast.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
# `make setup` downloads it; it contains a copy of the package `cotracker`.
UPSTREAM_WHEEL = "autosegmentor-*.whl"
HEIGHT, WIDTH = 384, 512
NUM_SUPPORT = 36
TAPNEXT_SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48, help="T")
    parser.add_argument("--points", type=int, default=600, help="N, including the 36 support points")
    parser.add_argument("--iters", type=int, default=6, help="refinement iterations of aot; upstream always makes 6")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--engines", nargs="+", default=["upstream", "fp32", "bf16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clip", type=Path, help="video to take the frames from; default: synthetic frames")
    parser.add_argument("--upstream", type=Path, help="folder that contains the package `cotracker` or `tapnet`")
    parser.add_argument(
        "--memory", type=int, nargs="+", metavar="T", help="measure only peak memory, for these clip lengths"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(**json.loads(options.child))))
        return
    with tempfile.TemporaryDirectory() as folder:
        is_needed = "upstream" in options.engines
        options.upstream = options.upstream or (unpack_upstream(Path(folder)) if is_needed else None)
        if options.memory:
            print_memory(options, Path(folder))
        else:
            print_comparison(options, Path(folder))


def unpack_upstream(folder: Path) -> Path | None:
    """Extract the package `cotracker` into a folder; returns the folder, or None if the package is installed.

    Raises:
        FileNotFoundError: there is no wheel in the folder `wheels` of the environment.
    """
    if find_spec("cotracker"):
        return None
    wheels = sorted(Path(sys.prefix, "wheels").glob(UPSTREAM_WHEEL))
    if not wheels:
        raise FileNotFoundError(
            f"{Path(sys.prefix, 'wheels', UPSTREAM_WHEEL)} does not exist; download it by `make setup`"
        )
    with zipfile.ZipFile(wheels[-1]) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("cotracker/")])
    return folder


def print_comparison(options: argparse.Namespace, folder: Path) -> None:
    runs: dict[str, list[dict[str, Any]]] = {engine: [] for engine in options.engines}
    for number in range(options.rounds):
        for engine in options.engines:
            runs[engine].append(measure_in_child(options, engine, options.frames, folder / f"{engine}.npy"))
            print(f"round {number + 1}: {engine}: {runs[engine][-1]['seconds']:.2f} s", file=sys.stderr)
    first = options.engines[0]
    expected = np.load(folder / f"{first}.npy")
    print(
        f"T={options.frames} N={options.points} {WIDTH}x{HEIGHT}, {options.iters} refinement iterations of CoTracker3, "
        f"{options.threads} threads; ratios and differences to {first}; medians of {options.rounds} rounds"
    )
    print(
        f"{'engine':22}{'s':>9}{'ratio':>8}{'CPU s':>9}{'ratio':>8}{'GB':>8}{'ratio':>8}"
        f"{'all GB':>8}{'ratio':>8}{'max px':>10}{'median px':>11}"
    )
    for engine in runs:
        columns = f"{engine:22}"
        for key, width in (("seconds", 9), ("cpu_seconds", 9), ("added_bytes", 8), ("peak_bytes", 8)):
            value, base = (median(result[key] for result in runs[name]) for name in (engine, first))
            is_memory = key.endswith("bytes")
            columns += (
                f"{value / (1e9 if is_memory else 1):{width}.2f}{value / base if is_memory else base / value:8.2f}"
            )
        distance = np.linalg.norm(np.load(folder / f"{engine}.npy") - expected, axis=-1)
        print(f"{columns}{distance.max():10.4f}{np.median(distance):11.4f}")


def print_memory(options: argparse.Namespace, folder: Path) -> None:
    print(f"peak above the model and the frames, GB, N={options.points}; growth from the first length to the last")
    print(f"{'engine':22}" + "".join(f"{f'T={length}':>10}" for length in options.memory) + f"{'MB/frame':>13}")
    for engine in options.engines:
        peaks = [
            measure_in_child(options, engine, length, folder / "tracks.npy")["added_bytes"] for length in options.memory
        ]
        growth = (peaks[-1] - peaks[0]) / (options.memory[-1] - options.memory[0]) / 1e6 if len(peaks) > 1 else 0
        print(f"{engine:22}" + "".join(f"{peak / 1e9:10.3f}" for peak in peaks) + f"{growth:13.2f}", flush=True)


def measure_in_child(options: argparse.Namespace, engine: str, num_frames: int, out: Path) -> dict[str, Any]:
    """Run one measurement in a child process."""
    task = {
        "engine": engine, "num_frames": num_frames, "num_points": options.points, "num_iters": options.iters,
        "clip": str(options.clip.resolve()) if options.clip else None, "device": options.device,
        "threads": options.threads, "out": str(out),
    }  # fmt: skip
    paths = [str(path) for path in (options.upstream, os.environ.get("PYTHONPATH")) if path]
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.tracker", "--child", json.dumps(task)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return result


def run(
    engine: str, num_frames: int, num_points: int, num_iters: int, clip: str | None, device: str, threads: int, out: str
) -> dict[str, float]:
    """Track once and write the tracks; returns time and added peak memory."""
    import torch

    from aot.system.devices import release_memory

    torch.set_num_threads(threads)
    frames = read_frames(Path(clip), num_frames) if clip else synthetic_frames(num_frames)
    queries = synthetic_queries(num_frames, num_points - NUM_SUPPORT)
    track = PREPARE[family(engine)](frames, queries, engine, num_iters, device)
    release_memory()  # of the synthetic weights, from which the model was made
    before, cpu, wall = reset_peak(device), cpu_seconds(), time.perf_counter()
    tracks = track()
    seconds = time.perf_counter() - wall
    spent = cpu_seconds() - cpu
    peak = peak_bytes(device)
    np.save(out, tracks)
    return {"seconds": seconds, "cpu_seconds": spent, "added_bytes": peak - before, "peak_bytes": peak}


def family(engine: str) -> str:
    """The key of PREPARE for an engine."""
    return ("tapnext-" if engine.startswith("tapnext-") else "") + ("upstream" if "upstream" in engine else "ours")


def upstream_tracker(frames: np.ndarray, queries: np.ndarray, engine: str, num_iters: int, device: str) -> Any:
    import torch
    from cotracker.predictor import CoTrackerPredictor

    from tests.tracking.cotracker3.weights import golden_weights

    predictor = CoTrackerPredictor(checkpoint=None).to(device).eval()
    predictor.model.load_state_dict(golden_weights())
    video = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2)[None].float()

    def track() -> np.ndarray:
        with torch.inference_mode():
            tracks, _ = predictor(video, queries=torch.from_numpy(queries)[None].to(device))
        xy: np.ndarray = tracks[0].cpu().numpy()
        return xy

    return track


def our_tracker(frames: np.ndarray, queries: np.ndarray, engine: str, num_iters: int, device: str) -> Any:
    from aot.tracking.cotracker3 import load_model, track_offline, track_online
    from tests.tracking.cotracker3.weights import golden_weights

    words = engine.split("-")
    precision: Any = next(word for word in words if word in ("fp32", "bf16", "fp16"))
    mode: Any = "online" if "online" in words else "offline"
    model = load_model(
        golden_weights(mode=mode), mode=mode, device=device, precision=precision, compile="compile" in words
    )
    predict: Any = track_online if mode == "online" else track_offline
    plan = model.choose_plan(
        len(frames) if mode == "offline" else model.window_len, len(queries) + NUM_SUPPORT, lean="lean" in words
    )

    def track() -> np.ndarray:
        tracks = predict(model, frames, query_points=queries, support_grid=True, num_iters=num_iters, plan=plan)
        xy: np.ndarray = tracks.xy
        return xy

    return track


def upstream_tapnext(frames: np.ndarray, queries: np.ndarray, engine: str, num_iters: int, device: str) -> Any:
    """The authors' network, frame by frame."""
    import torch
    from tapnet.tapnext.tapnext_torch import TAPNext
    from torch.nn.functional import interpolate

    from aot.tracking.tapnext.frames import to_network, to_source

    model = TAPNext((TAPNEXT_SIDE, TAPNEXT_SIDE)).to(device).eval()
    model.load_state_dict(tapnext_weights(), strict=False)
    txy = np.column_stack([queries[:, :1], to_network(queries[:, 1:], (HEIGHT, WIDTH), TAPNEXT_SIDE)])
    tyx = torch.from_numpy(txy[:, [0, 2, 1]]).to(device)[None]
    is_bf16 = "bf16" in engine

    def track() -> np.ndarray:
        found, state = [], None
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=is_bf16):
            for frame in frames:
                image = torch.from_numpy(frame).to(device).permute(2, 0, 1)[None].float()
                image = interpolate(image, (TAPNEXT_SIDE, TAPNEXT_SIDE), mode="bilinear") / 127.5 - 1
                video = image.permute(0, 2, 3, 1)[None]
                yx, _, _, state = model(video, tyx) if state is None else model(video, state=state)
                found.append(yx[0, 0].float().cpu().numpy()[:, ::-1])
        return pinned(to_source(np.stack(found), (HEIGHT, WIDTH)), queries)

    return track


def our_tapnext(frames: np.ndarray, queries: np.ndarray, engine: str, num_iters: int, device: str) -> Any:
    from aot.tracking.tapnext import load_model, track
    from aot.tracking.tapnext.sizes import LEAN_ROWS

    words = engine.split("-")
    precision: Any = next(word for word in words if word in ("fp32", "bf16", "fp16"))
    model = load_model(tapnext_weights(), device=device, precision=precision, compile="compile" in words)
    rows = LEAN_ROWS if "lean" in words else None
    return lambda: track(model, frames, queries, rows_at_once=rows).xy


def tapnext_weights() -> dict[str, Any]:
    """Synthetic weights of the released size."""
    from tests.tracking.tapnext.small import released_weights

    return released_weights()


def pinned(xy: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The tracks with each query's position on its frame."""
    xy[queries[:, 0].astype(int), np.arange(len(queries))] = queries[:, 1:]
    return xy


PREPARE = {
    "upstream": upstream_tracker,
    "ours": our_tracker,
    "tapnext-upstream": upstream_tapnext,
    "tapnext-ours": our_tapnext,
}


def synthetic_queries(num_frames: int, num_points: int) -> np.ndarray:
    """(N, 3) spread over the frame, half of them on frame 0."""
    rng = np.random.default_rng(0)
    t = rng.integers(0, num_frames, num_points) * (rng.random(num_points) < 0.5)
    xy = rng.uniform(0, [WIDTH - 1, HEIGHT - 1], (num_points, 2))
    return np.column_stack([t, xy]).astype(np.float32)


def synthetic_frames(num_frames: int) -> np.ndarray:
    """(T, H, W, 3): drifting blobs; the motion repeats after some hundred frames."""
    import cv2

    noise = np.random.default_rng(0).normal(size=(2 * HEIGHT, 2 * WIDTH, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3.0)
    plane = np.clip(128 + smooth * 60 / smooth.std(), 0, 255).astype(np.uint8)
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for t, frame in enumerate(frames):
        y, x = HEIGHT // 2 + round(100 * np.sin(t / 40)), WIDTH // 2 + round(150 * np.sin(t / 57))
        frame[:] = plane[y : y + HEIGHT, x : x + WIDTH]
    return frames


def read_frames(path: Path, num_frames: int) -> np.ndarray:
    """(T, H, W, 3) from a video, played forwards and backwards if it is too short."""
    import cv2

    from aot.decoding import open_source
    from aot.types import Clip

    with open_source(Clip(clip_id=path.stem, source=path)) as source:
        wanted = source.index[:num_frames]
        read = [cv2.resize(rgb, (WIDTH, HEIGHT)) for block in source.blocks(wanted) for rgb in block.rgb]
    there_and_back = np.arange(2 * len(read))
    order = np.minimum(there_and_back, there_and_back[::-1])
    return np.stack([read[order[t % len(order)]] for t in range(num_frames)])


def reset_peak(device: str) -> int:
    """Reset the peak of the memory; returns the bytes in use."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return memory_status("VmRSS")


def peak_bytes(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return memory_status("VmHWM")


def cpu_seconds() -> float:
    """User and system time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def memory_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


if __name__ == "__main__":
    main()
