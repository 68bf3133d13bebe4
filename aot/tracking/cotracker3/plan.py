"""Memory plans: block sizes, and where the features of a clip are stored.

A plan is chosen before any work, so that a clip fits or is refused immediately. No plan changes the results.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from aot.errors import OutOfMemory
from aot.system.memory import available_device_bytes, available_host_bytes
from aot.tracking.cotracker3.sizes import (
    BYTES,
    CHANNELS,
    HIDDEN,
    NUM_LEVELS,
    NUM_VIRTUAL,
    PATCH,
    TAPS,
    TOKEN_SIZE,
    WINDOW_LEN,
    Mode,
    Precision,
    level_sizes,
)

FeaturePlace = Literal["memory", "host", "file", "recompute"]
"""memory: the device's memory; host: the host's memory beside a GPU; file: a temporary file; recompute: nowhere,
computed again in every refinement iteration."""

# Fraction of the free memory that a plan may use; the rest is for other processes and for fragmentation.
USABLE_FRACTION = 0.85

# Frames whose features a GPU computes at once, the fastest first: 1.6 GB of activations at 384x512, 0.4, 0.1.
_FEATURE_BATCHES = (16, 4, 1)

_FLOAT = 4
# Float32 numbers per token during one block of the transformer: the hidden layer of its MLP, and seven of width
# HIDDEN (tokens, norm, q, k, v, attention, output).
_NUMBERS_PER_TOKEN = 4 * HIDDEN + 7 * HIDDEN
# Float32 numbers per point and frame: position, logits, their update and motion, in both directions, and the results.
_NUMBERS_PER_ESTIMATE = 40
# Number of tensors as large as the feature network's largest (64 channels at half size) that exist at once.
_FEATURE_TENSORS = 8
# Workspace of the linear algebra libraries and allocators.
_LIBRARY_BYTES = 48 * 2**20


@dataclass(frozen=True)
class MemoryPlan:
    """Block sizes and feature storage. Results do not depend on them, unless `dtype` is set."""

    query_block: int = 48
    """Points whose correlations are computed at once."""
    frame_block: int = 8
    """Frames whose features are read at once."""
    max_tokens: int = 4096
    """Tokens per pass of the transformer; at least those of one track or one frame."""
    feature_batch: int = 1
    """Frames whose features are computed at once; on a CPU several take longer than one after the other."""
    features: FeaturePlace = "memory"
    """Where an offline clip's features are stored; online, one window's are in the device's memory."""
    dtype: Precision | None = None
    """Type of the stored features; None: the model's precision. bf16 halves them and costs accuracy."""
    folder: Path | None = None
    """Folder of the temporary file; None: the system's folder for temporary files."""

    def __post_init__(self) -> None:
        for name in ("query_block", "frame_block", "max_tokens", "feature_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"MemoryPlan.{name}: got {getattr(self, name)}, expected an integer ≥ 1")

    @classmethod
    def wide(cls, feature_batch: int = 1) -> MemoryPlan:
        """A plan with large blocks for a GPU, where small ones take longer to launch than to compute."""
        return cls(query_block=256, frame_block=32, max_tokens=65536, feature_batch=feature_batch)

    @classmethod
    def lean(cls, features: FeaturePlace = "file") -> MemoryPlan:
        """A plan with small blocks, and features off the device."""
        return cls(query_block=16, frame_block=4, max_tokens=1024, features=features)

    @classmethod
    def candidates(
        cls, *, mode: Mode, is_length_known: bool = True, device: str = "cpu", lean: bool = False
    ) -> list[MemoryPlan]:
        """The plans to try, the fastest first.

        Args:
            mode: offline or online.
            is_length_known: whether the number of frames is known; otherwise the features go into a file, as their
                size cannot be compared with the free memory.
            device: PyTorch's name of the device.
            lean: only plans with small blocks, and with features off the device.
        """
        wide = [cls.wide(count) for count in _FEATURE_BATCHES] if device.startswith("cuda") else []
        if mode == "online":
            return ([] if lean else [*wide, cls()]) + [cls.lean("memory")]
        off_device: list[FeaturePlace] = ["file"] if device == "cpu" or not is_length_known else ["host", "file"]
        places: list[FeaturePlace] = ["memory", *off_device] if is_length_known else off_device
        usual = [replace(plan, features=places[0]) for plan in wide] + [cls(features=place) for place in places]
        return ([] if lean else usual) + [cls.lean(place) for place in off_device]

    @classmethod
    def choose(
        cls,
        *,
        mode: Mode,
        num_frames: int | None,
        num_points: int,
        resolution: tuple[int, int],
        precision: Precision = "fp32",
        device: str = "cpu",
        lean: bool = False,
        fixed: Mapping[str, Any] | None = None,
        available_bytes: int | None = None,
    ) -> MemoryPlan:
        """The fastest plan that fits.

        Args:
            mode: offline or online.
            num_frames: T of a clip; None: unknown. Not used online.
            num_points: N, including support points.
            resolution: (H, W) in px at which the model runs.
            precision: of the model.
            device: PyTorch's name of the device.
            lean: small blocks, and features off the device.
            fixed: fields of the plan that are set by the user; they apply to every candidate.
            available_bytes: free memory of the device; None: read from the system.
        Raises:
            OutOfMemory: the leanest plan does not fit.
        """
        free = available_device_bytes(device) if available_bytes is None else available_bytes
        offered = cls.candidates(mode=mode, is_length_known=num_frames is not None, device=device, lean=lean)
        plans = [replace(plan, **(fixed or {})) for plan in offered]
        length = WINDOW_LEN["online"] if mode == "online" else num_frames or 0
        for plan in plans:
            if plan.peak_bytes(length, num_points, resolution, precision) <= USABLE_FRACTION * free and (
                plan._features_fit(length, resolution, precision)
            ):
                return plan
        plan = plans[-1]
        raise OutOfMemory(
            f"tracking {num_points} points through {length} frames at {resolution[1]}x{resolution[0]} px needs "
            f"{plan.peak_bytes(length, num_points, resolution, precision) / 1e9:.2f} GB of memory with the leanest "
            f"plan, {free / 1e9:.2f} GB are free{plan._file_clause(length, resolution, precision)}; use "
            + (
                "fewer points"
                if mode == "online"
                else "a larger frame_interval, fewer points, or tracker=cotracker3_online"
            )
        )

    def feature_bytes(self, num_frames: int, resolution: tuple[int, int], precision: Precision) -> int:
        """Size in bytes of the features of this many frames."""
        pixels = sum(prod(size) for size in level_sizes(resolution))
        return num_frames * pixels * CHANNELS * BYTES[self.dtype or precision]

    def peak_bytes(
        self, num_frames: int, num_points: int, resolution: tuple[int, int], precision: Precision = "fp32"
    ) -> int:
        """Upper bound in bytes of the memory for tracking on its device, excluding the model and the source frames."""
        features = self.feature_bytes(num_frames, resolution, precision) if self.features == "memory" else 0
        features += self.feature_bytes(2 * self.frame_block + self.feature_batch - 1, resolution, precision)
        support = 2 * num_points * NUM_LEVELS * PATCH * CHANNELS * BYTES[self.dtype or precision]
        tokens = (num_points + 2 * NUM_VIRTUAL) * num_frames * HIDDEN * _FLOAT
        estimates = (num_points * _NUMBERS_PER_ESTIMATE + 3 * TOKEN_SIZE) * num_frames * _FLOAT
        rows = min(self.query_block, num_points) * min(self.frame_block, max(num_frames, 1))
        row = TAPS * TAPS * (CHANNELS + 2 + 2 * PATCH) + 2 * PATCH * PATCH + (NUM_LEVELS + 1) * HIDDEN
        at_once = min(
            max(self.max_tokens, num_frames, num_points + NUM_VIRTUAL), (num_points + NUM_VIRTUAL) * num_frames
        )
        block = max(rows * row, at_once * _NUMBERS_PER_TOKEN) * _FLOAT
        network = self.feature_batch * _FEATURE_TENSORS * 64 * prod(resolution) // 4 * _FLOAT
        return features + support + tokens + estimates + max(block, network) + _LIBRARY_BYTES

    def _features_fit(self, num_frames: int, resolution: tuple[int, int], precision: Precision) -> bool:
        """Whether features stored off the device fit there."""
        if self.features == "host":
            return self.feature_bytes(num_frames, resolution, precision) <= USABLE_FRACTION * available_host_bytes()
        if self.features == "file":
            return self.feature_bytes(num_frames, resolution, precision) <= self._free_on_disk()
        return True

    def _free_on_disk(self) -> int:
        return shutil.disk_usage(self.folder or tempfile.gettempdir()).free

    def _file_clause(self, num_frames: int, resolution: tuple[int, int], precision: Precision) -> str:
        """The part of the error message about the temporary file; empty where the plan has none."""
        if self.features != "file":
            return ""
        size = self.feature_bytes(num_frames, resolution, precision)
        return (
            f"; the features need {size / 1e9:.2f} GB in {self.folder or tempfile.gettempdir()}, where "
            f"{self._free_on_disk() / 1e9:.2f} GB are free"
        )
