"""Memory plans: results do not depend on them, and a clip that does not fit is refused before any work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aot.errors import OutOfMemory, WriteError
from aot.tracking.cotracker3 import CoTracker3, MemoryPlan, track_offline, track_online
from aot.tracking.cotracker3 import plan as plan_module
from aot.tracking.cotracker3.sizes import HIDDEN, RESOLUTION, TOKEN_SIZE
from tests.synthetic import moving_square
from tests.tracking.cotracker3.allocations import peak_allocated_bytes
from tests.tracking.cotracker3.small import small_model

pytestmark = pytest.mark.usefixtures("one_thread")

RecordProperty = Callable[[str, object], None]

# Results of different plans differ only by rounding.
MAX_PX = 1e-3
REPOSITORY = Path(__file__).parents[3]

plans = st.builds(
    MemoryPlan,
    query_block=st.integers(1, 12),
    frame_block=st.integers(1, 12),
    max_tokens=st.integers(10, 300),
    feature_batch=st.integers(1, 9),
    features=st.sampled_from(["memory", "host", "file", "recompute"]),
)


@st.composite
def queries(draw: st.DrawFn, num_frames: int) -> np.ndarray:
    num_points = draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    t = rng.integers(0, num_frames, num_points)
    return np.column_stack([t, rng.uniform(-5, [100, 70], (num_points, 2))]).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _small_models() -> None:
    """Set module-level models, as Hypothesis does not allow function-scoped fixtures."""
    _MODELS["offline"] = small_model("offline", (32, 40))
    _MODELS["online"] = small_model("online", (32, 40))


_MODELS: dict[str, CoTracker3] = {}


@settings(max_examples=15)
@given(plan=plans, num_frames=st.integers(1, 7), backward=st.booleans(), data=st.data())
def test_no_plan_changes_offline_results(plan: MemoryPlan, num_frames: int, backward: bool, data: Any) -> None:
    frames, points = moving_square(num_frames), data.draw(queries(num_frames))
    options = {"query_points": points, "backward": backward, "num_iters": 2, "support_grid": False}
    expected = track_offline(_MODELS["offline"], frames, plan=MemoryPlan(), **options)
    found = track_offline(_MODELS["offline"], frames, plan=plan, **options)
    assert np.abs(found.xy - expected.xy).max() < MAX_PX
    assert np.abs(found.visibility - expected.visibility).max() < MAX_PX
    assert np.abs(found.confidence - expected.confidence).max() < MAX_PX


@settings(max_examples=6)
@given(plan=plans, num_frames=st.integers(1, 19), late=st.sampled_from(["always", "join"]), data=st.data())
def test_no_plan_changes_online_results(plan: MemoryPlan, num_frames: int, late: Any, data: Any) -> None:
    frames, points = moving_square(num_frames), data.draw(queries(num_frames))
    options = {"query_points": points, "late_queries": late, "num_iters": 1}
    expected = track_online(_MODELS["online"], frames, plan=MemoryPlan(), **options)
    found = track_online(_MODELS["online"], frames, plan=plan, **options)
    assert np.abs(found.xy - expected.xy).max() < MAX_PX
    assert np.abs(found.visibility - expected.visibility).max() < MAX_PX


def choose(num_frames: int | None = 100, available_bytes: float = 1e12, **options: Any) -> MemoryPlan:
    arguments = {"mode": "offline", "num_points": 66, "resolution": RESOLUTION} | options
    return MemoryPlan.choose(num_frames=num_frames, available_bytes=int(available_bytes), **arguments)


def test_features_are_stored_where_they_fit() -> None:
    in_memory, in_file = (MemoryPlan(features=place).peak_bytes(100, 66, RESOLUTION) for place in ("memory", "file"))
    assert choose(available_bytes=1.2 * in_memory) == MemoryPlan()
    assert choose(available_bytes=1.1 * in_memory) == MemoryPlan(features="file")
    assert choose(available_bytes=1.2 * in_file) == MemoryPlan(features="file")
    assert choose(available_bytes=1.1 * in_file) == MemoryPlan.lean("file")


def test_features_of_unknown_length_are_stored_in_a_file() -> None:
    assert choose(None) == MemoryPlan(features="file")


def test_lean_keeps_features_off_the_device() -> None:
    assert choose(lean=True) == MemoryPlan.lean("file")
    assert MemoryPlan.candidates(mode="offline", device="cuda:0", lean=True)[0] == MemoryPlan.lean("host")
    assert choose(lean=True, mode="online") == MemoryPlan.lean("memory")


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_gpu_computes_large_blocks_where_they_fit(mode: str) -> None:
    def chosen_with(plan: MemoryPlan, factor: float, device: str = "cuda:0") -> MemoryPlan:
        needed = plan.peak_bytes(100 if mode == "offline" else 16, 66, RESOLUTION)
        return choose(available_bytes=factor * needed, mode=mode, device=device)

    assert chosen_with(MemoryPlan.wide(16), 1.2) == MemoryPlan.wide(16)
    assert chosen_with(MemoryPlan.wide(16), 1.1) == MemoryPlan.wide(4)
    assert chosen_with(MemoryPlan.wide(1), 1.2) in (MemoryPlan.wide(4), MemoryPlan.wide(1))
    assert chosen_with(MemoryPlan.wide(1), 1.1) == MemoryPlan()
    assert chosen_with(MemoryPlan.wide(16), 1.2, "cpu") == MemoryPlan()
    assert choose(None, device="cuda:0", mode="offline") == replace(MemoryPlan.wide(16), features="file")


def test_fields_set_by_the_user_are_kept() -> None:
    fixed = {"features": "recompute", "query_block": 5, "dtype": "bf16"}
    assert choose(fixed=fixed) == MemoryPlan(features="recompute", query_block=5, dtype="bf16")
    assert choose(fixed={"frame_block": 2}, lean=True).frame_block == 2


def test_online_memory_does_not_depend_on_the_clip() -> None:
    needed = MemoryPlan().peak_bytes(16, 66, RESOLUTION)
    assert choose(100_000, 1.2 * needed, mode="online") == MemoryPlan()


def test_feature_bytes_depend_on_precision() -> None:
    full, half = (MemoryPlan(dtype=dtype).feature_bytes(100, RESOLUTION, "fp32") for dtype in (None, "bf16"))
    assert full == 2 * half == 100 * 128 * 4 * (96 * 128 + 48 * 64 + 24 * 32 + 12 * 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_points": 10_000}, r"10000 points through 100 frames at 512x384 px needs .* GB .* 0\.40 GB are free"),
        ({"num_points": 10_000}, "use a larger frame_interval, fewer points, or tracker=cotracker3_online"),
        ({"num_points": 10_000, "mode": "online"}, "are free; use fewer points"),
    ],
)
def test_clip_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OutOfMemory, match=message):
        choose(available_bytes=0.4e9, **options)


def test_full_disk_is_reported_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module.MemoryPlan, "_free_on_disk", lambda self: 10**6)
    with pytest.raises(OutOfMemory, match=r"the features need 0\.84 GB in .*, where 0\.00 GB are free"):
        choose(lean=True)


def test_refused_before_the_frames_are_read(offline: CoTracker3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "available_device_bytes", lambda device: 10**6)
    frames = iter([moving_square(3)] * 5)
    with pytest.raises(OutOfMemory, match="needs"):
        track_offline(offline, frames, query_points=np.array([[0, 20, 30]], np.float32), num_frames=15)
    assert len(list(frames)) == 4, "only the first block was read, for the frame size"


def test_file_that_cannot_be_created_raises(offline: CoTracker3, tmp_path: Path) -> None:
    plan = MemoryPlan(features="file", folder=tmp_path / "missing")
    with pytest.raises(WriteError, match=r"missing.*could not be written: no such file or folder"):
        track_offline(offline, moving_square(2), query_points=np.array([[0, 20, 30]], np.float32), plan=plan)


@pytest.mark.parametrize("field", ["query_block", "frame_block", "max_tokens"])
def test_empty_blocks_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: got 0, expected an integer ≥ 1"):
        MemoryPlan(**{field: 0})


def test_failed_clip_leaves_no_file(offline: CoTracker3, tmp_path: Path) -> None:
    """Nor an open handle, which would cause a warning, and warnings are errors."""

    def broken() -> Any:
        yield moving_square(3)
        raise RuntimeError("the decoder broke")

    plan = MemoryPlan(features="file", folder=tmp_path)
    with pytest.raises(RuntimeError, match="the decoder broke"):
        track_offline(offline, broken(), query_points=np.array([[0, 20, 30]], np.float32), plan=plan)
    assert list(tmp_path.iterdir()) == []


def test_stored_features_can_have_lower_precision(offline: CoTracker3) -> None:
    points = np.array([[0, 20, 30], [2, 60, 20]], np.float32)
    exact, halved = (
        track_offline(offline, moving_square(5), query_points=points, num_iters=2, plan=MemoryPlan(dtype=dtype))
        for dtype in (None, "bf16")
    )
    assert 0 < np.abs(exact.xy - halved.xy).max() < 0.2


# Runs in a separate process, so that only its memory is measured.
MEASURE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from aot.tracking.cotracker3 import MemoryPlan, load_model, track_offline
from tests.tracking.cotracker3.weights import golden_weights

task = json.loads(sys.argv[1])
torch.set_num_threads(1)
resolution = tuple(task["resolution"])
model = load_model(golden_weights(), resolution=resolution, precision=task["precision"])
frames = np.random.default_rng(0).integers(0, 255, (task["frames"], *resolution, 3), dtype=np.uint8)
points = np.random.default_rng(1).uniform(0, min(resolution), (task["points"], 3)).astype(np.float32)
points[:, 0] = 0
plan = MemoryPlan(**task["plan"])

def status(name):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

# The libraries allocate memory on first use, which is counted as the model's.
track_offline(model, frames[:2], query_points=points[:1], num_iters=1)
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
track_offline(model, frames, query_points=points, num_iters=1, plan=plan)
estimate = plan.peak_bytes(len(frames), len(points) + 36, resolution, task["precision"])
print(json.dumps([status("VmHWM") - before, estimate]))
"""


def measure(task: dict[str, Any]) -> tuple[int, int]:
    """Bytes used and bytes estimated."""
    command = [sys.executable, "-c", MEASURE, json.dumps(task)]
    # Allocates every array in separate pages: where malloc raises this threshold itself, a freed array may or may not
    # stay in the heap, a random difference of 40 MB.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
    process = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    used, estimate = json.loads(process.stdout)
    return used, estimate


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_frames", "num_points", "plan"),
    [(12, 30, {}), (12, 30, {"features": "file", "query_block": 16, "frame_block": 4, "max_tokens": 1024}),
     (3, 200, {}), (3, 200, {"features": "recompute", "query_block": 8, "max_tokens": 256}),
     (12, 30, {"feature_batch": 8})],
)  # fmt: skip
def test_estimate_is_an_upper_bound_of_the_bytes_of_tensors(
    large: CoTracker3, num_frames: int, num_points: int, plan: dict[str, Any], record_property: RecordProperty
) -> None:
    frames = moving_square(num_frames)
    points = np.random.default_rng(1).uniform(0, 60, (num_points, 3)).astype(np.float32)
    points[:, 0] = 0
    chosen = MemoryPlan(**plan)

    def track() -> None:
        track_offline(large, frames, query_points=points, num_iters=1, support_grid=False, plan=chosen)

    track()  # buffers that the libraries allocate once are not counted
    used = peak_allocated_bytes(track)
    estimate = chosen.peak_bytes(num_frames, num_points, large.resolution) - plan_module._LIBRARY_BYTES
    record_property("figure", f"{used / 1e6:.1f} MB of tensors, {estimate / 1e6:.1f} MB estimated")
    assert used < estimate < 2.5 * used


@pytest.mark.parametrize(
    ("plan", "per_frame"), [({}, 1.0), ({"dtype": "bf16"}, 0.5), ({"features": "file"}, 0.0)], ids=str
)
def test_tensors_grow_only_with_features(offline: CoTracker3, plan: dict[str, Any], per_frame: float) -> None:
    """Besides the stored features, a frame takes a token, an estimate and results per point."""
    lengths, points = (24, 48), np.array([[0, 20, 30], [0, 60, 20]], np.float32)
    chosen, frames = MemoryPlan(query_block=1, frame_block=2, **plan), moving_square(max(lengths))

    def track(num_frames: int) -> None:
        track_offline(offline, frames[:num_frames], query_points=points, num_iters=1, support_grid=False, plan=chosen)

    short, long = (peak_allocated_bytes(lambda length=length: track(length)) for length in lengths)
    growth = (long - short) / (lengths[1] - lengths[0])
    features = per_frame * MemoryPlan().feature_bytes(1, offline.resolution, "fp32")
    numbers = 2 * TOKEN_SIZE + 2 * len(points) * (HIDDEN + 100)  # float32 numbers: the time embedding, and tokens
    assert features <= growth <= features + 4 * numbers


@pytest.mark.long
@pytest.mark.parametrize(
    ("frames", "points", "resolution", "precision", "plan"),
    [
        (40, 30, (192, 256), "fp32", {}),
        (40, 30, (192, 256), "bf16", {}),
        (40, 30, (192, 256), "fp32", {"features": "file", "query_block": 16, "frame_block": 4, "max_tokens": 1024}),
        (12, 1500, (96, 128), "fp32", {}),
        (12, 1500, (96, 128), "fp32", {"features": "recompute", "query_block": 8, "max_tokens": 256}),
        (6, 30, (384, 512), "fp32", {}),
    ],
)
def test_estimate_is_a_close_upper_bound(
    frames: int,
    points: int,
    resolution: tuple[int, int],
    precision: str,
    plan: dict[str, Any],
    record_property: RecordProperty,
) -> None:
    """Of the resident memory. Quick counterpart: `test_estimate_is_an_upper_bound_of_the_bytes_of_tensors`."""
    task = {"frames": frames, "points": points, "resolution": resolution, "precision": precision, "plan": plan}
    used, estimate = measure(task)
    record_property("figure", f"{used / 1e6:.0f} MB used, {estimate / 1e6:.0f} MB estimated")
    assert used < estimate < 2.5 * used + 200e6


LEAN = {"features": "file", "query_block": 16, "frame_block": 4, "max_tokens": 1024}


@pytest.mark.long
@pytest.mark.parametrize(
    ("precision", "plan", "lengths", "limit"),
    [("fp32", {}, (40, 64), 9e6), ("bf16", {}, (48, 144), 4.5e6), ("fp32", LEAN, (16, 32), 1e6)],
    ids=["fp32", "bf16", "lean"],
)
def test_memory_of_66_points_grows_only_with_features(
    precision: str,
    plan: dict[str, Any],
    lengths: tuple[int, int],
    limit: float,
    record_property: RecordProperty,
) -> None:
    """Of the resident memory. Quick counterpart: `test_tensors_grow_only_with_features`."""
    tasks = [
        {"frames": length, "points": 30, "resolution": RESOLUTION, "precision": precision, "plan": plan}
        for length in lengths
    ]
    (short, _), (long, _) = map(measure, tasks)
    growth = (long - short) / (lengths[1] - lengths[0])
    record_property("figure", f"{growth / 1e6:.2f} MB per frame, limit {limit / 1e6:.1f} MB")
    assert growth <= limit


def test_planning_does_not_import_torch() -> None:
    code = (
        "import sys; from aot.tracking.cotracker3 import MemoryPlan\n"
        "MemoryPlan.choose(mode='offline', num_frames=9, num_points=9, resolution=(384, 512))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True)
