"""CoTracker3 online: a sliding window of 16 frames, clips of any length at constant memory.

Source: CoTracker3 (arXiv:2410.11831). The weights are CC-BY-NC 4.0; docs/cotracker3.md documents the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Le

from aot.decoding.base import FrameSource
from aot.system.devices import DeviceOption
from aot.tracking.cotracker3.adapter import CoTracker3Adapter, Network
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import RESOLUTION, LateQueries, Mode, Precision
from aot.types import Float32Array, Tracks

if TYPE_CHECKING:
    from aot.tracking.cotracker3.model import CoTracker3


class CoTracker3OnlineTracker(CoTracker3Adapter):
    """Tracks with the online model: forwards through a stream, and with `backward` before the queries too.

    Args:
        checkpoint: file of the weights; None: `scaled_online.pth`.
        precision: of weights and activations; fp32 is exact, bf16 and fp16 are faster where the hardware supports them.
        device: auto selects CUDA, then MPS, then the CPU.
        compile: compile the network with torch.compile on first use: takes minutes, then faster on CUDA.
        resolution: height and width in px to which frames are scaled for the model, ≥ 32 each; trained at (384, 512).
        num_iters: refinement iterations per window, ≥ 1.
        visibility_threshold: a point is visible above this visibility x confidence, in 0..1.
        support_grid: add a grid of 36 support points on frame 0, which are tracked with the others and dropped.
        backward: track backwards from each query too; otherwise a point is not visible before its query's window.
        late_queries: always: every query takes part from the first window on, as upstream; join: from the first window
            that contains its frame.
        feature_precision: type of the stored features; None: as `precision`. bf16 halves them.
        query_block: points whose correlations are computed at once, > 0; None: chosen by the free memory.
        frame_block: frames whose features are read at once, > 0; None: chosen by the free memory.
        max_tokens: points x frames per pass of the transformer, > 0; None: chosen by the free memory.
        feature_batch: frames whose features are computed at once, > 0; None: chosen by the free memory, 1 on a CPU.

    Raises:
        ConfigError: the resolution is too small.
        CheckpointError: the weights are missing.
    """

    mode: ClassVar[Mode] = "online"

    def __init__(
        self,
        checkpoint: Path | None = None,
        precision: Precision = "fp32",
        device: DeviceOption = "auto",
        compile: bool = False,
        resolution: tuple[int, int] = RESOLUTION,
        num_iters: Annotated[int, Ge(1)] = 6,
        visibility_threshold: Annotated[float, Ge(0), Le(1)] = 0.6,
        support_grid: bool = False,
        backward: bool = False,
        late_queries: LateQueries = "always",
        feature_precision: Precision | None = None,
        query_block: Annotated[int, Gt(0)] | None = None,
        frame_block: Annotated[int, Gt(0)] | None = None,
        max_tokens: Annotated[int, Gt(0)] | None = None,
        feature_batch: Annotated[int, Gt(0)] | None = None,
    ) -> None:
        super().__init__(
            Network(checkpoint, resolution, precision, device, compile),
            num_iters=num_iters,
            visibility_threshold=visibility_threshold,
            support_grid=support_grid,
            backward=backward,
            plan={
                "dtype": feature_precision,
                "query_block": query_block,
                "frame_block": frame_block,
                "max_tokens": max_tokens,
                "feature_batch": feature_batch,
            },
        )
        self.late_queries = late_queries

    def _predictor(
        self, model: CoTracker3, frames: FrameSource, plan: MemoryPlan
    ) -> AbstractContextManager[Callable[[Float32Array], Tracks]]:
        return nullcontext(partial(self._predict, model, frames, plan))

    def _predict(self, model: CoTracker3, frames: FrameSource, plan: MemoryPlan, points: Float32Array) -> Tracks:
        from aot.tracking.cotracker3.online import track_online
        from aot.tracking.frames import SourceBlocks

        last = int(points[:, 0].max(initial=0))
        return track_online(
            model,
            SourceBlocks(frames),
            points,
            support_grid=self.support_grid,
            late_queries=self.late_queries,
            backward_frames=SourceBlocks(frames, np.ascontiguousarray(frames.index[last::-1]))
            if self.backward
            else None,
            num_iters=self.num_iters,
            visibility_threshold=self.visibility_threshold,
            plan=plan,
        )
