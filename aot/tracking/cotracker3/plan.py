"""How much is worked on at once, and where the features of a clip live: chosen before any work, so that a clip fits
or is refused at once. No choice changes the results."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import torch

from aot.errors import OutOfMemory
from aot.tracking.cotracker3.correlation import PATCH, TAPS
from aot.tracking.cotracker3.features import CHANNELS, NUM_LEVELS, level_sizes
from aot.tracking.cotracker3.transformer import HIDDEN, NUM_VIRTUAL

Precision = Literal["fp32", "bf16", "fp16"]
FeaturePlace = Literal["memory", "host", "file", "recompute"]

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Share of the free memory that a plan may fill; the rest is for what else runs, and for what an allocator wastes.
USABLE_SHARE = 0.85

_FLOAT = 4
# Float32 numbers per token while one block of the transformer works: the hidden layer of its MLP, and seven of width
# HIDDEN (tokens, norm, q, k, v, attention, output).
_NUMBERS_PER_TOKEN = 4 * HIDDEN + 7 * HIDDEN
# Tensors of the size of the feature network's largest (64 channels at half size) that are alive at once.
_FEATURE_TENSORS = 8


@dataclass(frozen=True)
class MemoryPlan:
    """What is held at once. Results do not depend on it."""

    query_block: int = 48
    """Points whose correlations are computed at once."""
    frame_block: int = 8
    """Frames whose features are read at once."""
    max_tokens: int = 4096
    """Tokens that go through the transformer at once; at least one track's or one frame's."""
    features: FeaturePlace = "memory"
    """memory (the device's), host (beside a GPU), file (a temporary one), recompute (in every iteration)."""
    dtype: Precision | None = None
    """Type of the kept features; None: the model's precision. bf16 halves them and costs accuracy."""
    folder: Path | None = None
    """Where the temporary file goes; None: the system's folder for such files."""

    def __post_init__(self) -> None:
        for name in ("query_block", "frame_block", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"MemoryPlan.{name}: got {getattr(self, name)}, expected an integer ≥ 1")

    @classmethod
    def lean(cls, features: FeaturePlace = "file") -> MemoryPlan:
        """Small blocks, and features off the device."""
        return cls(query_block=16, frame_block=4, max_tokens=1024, features=features)

    @classmethod
    def choose(
        cls,
        *,
        num_frames: int | None,
        num_points: int,
        resolution: tuple[int, int],
        precision: Precision = "fp32",
        device: torch.device | str = "cpu",
        lean: bool = False,
        available_bytes: int | None = None,
    ) -> MemoryPlan:
        """The fastest plan that fits.

        Args:
            num_frames: T; None where it is not known beforehand, which puts the features into a file.
            num_points: N, support points included.
            resolution: (H, W) that the model runs at.
            lean: begin with the leanest plan.
            available_bytes: free memory of the device; None: ask the system.
        Raises:
            OutOfMemory: not even the leanest plan fits, or its file would not.
        """
        device = torch.device(device)
        free = free_bytes(device) if available_bytes is None else available_bytes
        places: list[FeaturePlace] = ["file"] if num_frames is None else ["memory", "file"]
        if device.type != "cpu" and num_frames is not None:
            host = USABLE_SHARE * free_bytes(torch.device("cpu"))
            if host > cls().feature_bytes(num_frames, resolution, precision):
                places.insert(1, "host")
        plans = [] if lean else [cls(features=place) for place in places]
        plans += [cls.lean(place) for place in places if place != "memory"]
        frames = num_frames or 0
        for plan in plans:
            if plan.peak_bytes(frames, num_points, resolution, precision) <= USABLE_SHARE * free and (
                plan.features != "file" or plan.file_fits(frames, resolution, precision)
            ):
                return plan
        needed = plans[-1].peak_bytes(frames, num_points, resolution, precision)
        raise OutOfMemory(
            f"tracking {num_points} points through {frames} frames at {resolution[1]}x{resolution[0]} takes "
            f"{needed / 1e9:.2f} GB of memory and {plans[-1].feature_bytes(frames, resolution, precision) / 1e9:.2f} GB "
            f"in {tempfile.gettempdir()} with the leanest plan, {free / 1e9:.2f} GB and "
            f"{shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.2f} GB are free; use a larger frame_interval, "
            f"fewer points, or tracker=cotracker3_online"
        )

    def feature_bytes(self, num_frames: int, resolution: tuple[int, int], precision: Precision) -> int:
        """Size of the features of so many frames."""
        pixels = sum(prod(size) for size in level_sizes(resolution))
        return num_frames * pixels * CHANNELS * DTYPES[self.dtype or precision].itemsize

    def file_fits(self, num_frames: int, resolution: tuple[int, int], precision: Precision) -> bool:
        """Whether the temporary file of features has room."""
        free = shutil.disk_usage(self.folder or tempfile.gettempdir()).free
        return self.feature_bytes(num_frames, resolution, precision) < free

    def peak_bytes(
        self, num_frames: int, num_points: int, resolution: tuple[int, int], precision: Precision = "fp32"
    ) -> int:
        """Memory that tracking takes beside the model itself, estimated from above."""
        feature_type = DTYPES[self.dtype or precision].itemsize
        kept = self.feature_bytes(num_frames, resolution, precision) if self.features == "memory" else 0
        kept += 2 * self.feature_bytes(self.frame_block, resolution, precision)
        support = num_points * NUM_LEVELS * PATCH * CHANNELS * feature_type
        tokens = (num_points + 2 * NUM_VIRTUAL) * num_frames * HIDDEN * _FLOAT
        # Positions, logits, their update, motion: some twenty numbers a point and frame.
        estimates = num_points * num_frames * 20 * _FLOAT
        rows = min(self.query_block, num_points) * min(self.frame_block, max(num_frames, 1))
        row = TAPS * TAPS * (CHANNELS + 2 + 2 * PATCH) + 2 * PATCH * PATCH + (NUM_LEVELS + 1) * HIDDEN
        at_once = min(
            max(self.max_tokens, num_frames, num_points + NUM_VIRTUAL), (num_points + NUM_VIRTUAL) * num_frames
        )
        block = max(rows * row * _FLOAT, at_once * _NUMBERS_PER_TOKEN * _FLOAT)
        picture = _FEATURE_TENSORS * 64 * prod(resolution) // 4 * _FLOAT
        return kept + support + tokens + estimates + max(block, picture)

    def with_dtype(self, dtype: Precision) -> MemoryPlan:
        """The same plan with features kept in another type."""
        return replace(self, dtype=dtype)


def free_bytes(device: torch.device) -> int:
    """Memory that can still be had: of a GPU, or of this machine within the limits of our control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    return min([free, *_control_group_room()])


def _control_group_room() -> list[int]:
    """What is left below the memory limit of each control group that we are in."""
    rooms = []
    for line in _text("/proc/self/cgroup").splitlines():
        number, controllers, name = line.split(":", 2)
        version_2 = number == "0" and not controllers
        if not version_2 and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup") if version_2 else Path("/sys/fs/cgroup/memory")
        limit_name, usage_name = (
            ("memory.max", "memory.current") if version_2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        folder = root / name.lstrip("/")
        for group in (folder, *folder.parents):
            limit, usage = _text(group / limit_name), _text(group / usage_name)
            if limit.isdigit() and usage.isdigit():
                rooms.append(max(0, int(limit) - int(usage) + _evictable(group)))
            if group == root:
                break
    return rooms


def _evictable(group: Path) -> int:
    """Bytes of cached files that count as used but are given back on demand."""
    for line in _text(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _text(path: Path | str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
