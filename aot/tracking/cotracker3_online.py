"""CoTracker3, a window of 16 frames at a time: clips of any length at constant memory.

Source: CoTracker3 (arXiv:2410.11831). The weights are CC-BY-NC 4.0; how the engine works is told in docs/cotracker3.md.
"""

from __future__ import annotations

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
    """Tracks by the online model: forwards through a stream, and backwards before the queries if asked."""

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
    ) -> None:
        """Keep the options; they are explained in conf/tracker/cotracker3_online.yaml.

        Raises:
            ConfigError: the weights are not there.
        """
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
            },
        )
        self.late_queries = late_queries

    def _predict(self, model: CoTracker3, frames: FrameSource, points: Float32Array, plan: MemoryPlan) -> Tracks:
        from aot.tracking.cotracker3.frames import SourceBlocks
        from aot.tracking.cotracker3.online import track_online

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
