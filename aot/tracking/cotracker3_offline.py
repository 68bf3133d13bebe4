"""CoTracker3 offline: the full clip at once, most accurate, 8.4 MB per frame (float32) in memory or on disk.

Source: CoTracker3 (arXiv:2410.11831). The weights are CC-BY-NC 4.0; docs/cotracker3.md documents the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from aot.decoding.base import FrameSource
from aot.errors import ConfigError
from aot.system.devices import DeviceOption
from aot.tracking.cotracker3.adapter import CoTracker3Adapter, Network
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import RESOLUTION, Mode, Precision
from aot.types import Float32Array, Tracks

if TYPE_CHECKING:
    from aot.tracking.cotracker3.model import CoTracker3


class CoTracker3OfflineTracker(CoTracker3Adapter):
    """Tracks with the offline model, which uses all frames, before and after the query.

    Args:
        checkpoint: file of the weights; None: `scaled_offline.pth`.
        precision: of weights and activations; fp32 is exact, bf16 and fp16 are faster where the hardware supports them.
        device: auto selects CUDA, then MPS, then the CPU.
        compile: compile the network with torch.compile on first use: takes minutes, then faster on CUDA.
        resolution: height and width in px to which frames are scaled for the model, ≥ 32 each; trained at (384, 512).
        num_iters: refinement iterations, ≥ 1.
        visibility_threshold: a point is visible above this visibility, in 0..1; its confidence is not used.
        support_grid: add a grid of 36 support points on frame 0, which are tracked with the others and dropped.
        backward: track the reversed clip for the frames before each query; doubles the time.
        features: where the clip's features are stored: memory (of the device), host, file, or recompute (nowhere);
            auto selects the fastest that fits.
        feature_precision: type of the stored features; None: as `precision`. bf16 halves them.
        feature_folder: existing folder for the file of features; None: the system's folder for temporary files.
        query_block: points whose correlations are computed at once, > 0; None: chosen by the free memory.
        frame_block: frames whose features are read at once, > 0; None: chosen by the free memory.
        max_tokens: points x frames per pass of the transformer, > 0; None: chosen by the free memory.
        feature_batch: frames whose features are computed at once, > 0; None: chosen by the free memory, 1 on a CPU.

    Raises:
        ConfigError: feature_folder does not exist, or the resolution is too small.
        CheckpointError: the weights are missing.
    """

    mode: ClassVar[Mode] = "offline"

    def __init__(
        self,
        checkpoint: Path | None = None,
        precision: Precision = "fp32",
        device: DeviceOption = "auto",
        compile: bool = False,
        resolution: tuple[int, int] = RESOLUTION,
        num_iters: Annotated[int, Ge(1)] = 6,
        visibility_threshold: Annotated[float, Ge(0), Le(1)] = 0.9,
        support_grid: bool = True,
        backward: bool = False,
        features: Literal["auto", "memory", "host", "file", "recompute"] = "auto",
        feature_precision: Precision | None = None,
        feature_folder: Path | None = None,
        query_block: Annotated[int, Gt(0)] | None = None,
        frame_block: Annotated[int, Gt(0)] | None = None,
        max_tokens: Annotated[int, Gt(0)] | None = None,
        feature_batch: Annotated[int, Gt(0)] | None = None,
    ) -> None:
        if feature_folder is not None and not feature_folder.is_dir():
            raise ConfigError(
                f"tracker.feature_folder={feature_folder}: no such folder; expected an existing folder with free space"
            )
        super().__init__(
            Network(checkpoint, resolution, precision, device, compile),
            num_iters=num_iters,
            visibility_threshold=visibility_threshold,
            support_grid=support_grid,
            backward=backward,
            plan={
                "features": None if features == "auto" else features,
                "dtype": feature_precision,
                "folder": feature_folder,
                "query_block": query_block,
                "frame_block": frame_block,
                "max_tokens": max_tokens,
                "feature_batch": feature_batch,
            },
        )

    @contextmanager
    def _predictor(
        self, model: CoTracker3, frames: FrameSource, plan: MemoryPlan
    ) -> Iterator[Callable[[Float32Array], Tracks]]:
        from aot.tracking.cotracker3.offline import open_offline
        from aot.tracking.frames import SourceBlocks

        with open_offline(model, SourceBlocks(frames), plan) as clip:
            yield partial(
                clip.track,
                backward=self.backward,
                support_grid=self.support_grid,
                num_iters=self.num_iters,
                visibility_threshold=self.visibility_threshold,
            )
