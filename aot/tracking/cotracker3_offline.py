"""CoTracker3, the whole clip at once: the most accurate, at 8.4 MB of memory a frame (float32), or of disk.

Source: CoTracker3 (arXiv:2410.11831). The weights are CC-BY-NC 4.0; how the engine works is told in docs/cotracker3.md.
"""

from __future__ import annotations

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
    """Tracks by the offline model: every frame counts for every other, before and after the query."""

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
    ) -> None:
        """Keep the options; they are explained in conf/tracker/cotracker3.yaml.

        Raises:
            ConfigError: the weights, or the folder for features, are not there.
        """
        if feature_folder is not None and not feature_folder.is_dir():
            raise ConfigError(f"tracker.feature_folder={feature_folder}: no such folder; expected one with room")
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
            },
        )

    def _predict(self, model: CoTracker3, frames: FrameSource, points: Float32Array, plan: MemoryPlan) -> Tracks:
        from aot.tracking.cotracker3.frames import SourceBlocks
        from aot.tracking.cotracker3.offline import track_offline

        return track_offline(
            model,
            SourceBlocks(frames),
            query_points=points,
            backward=self.backward,
            support_grid=self.support_grid,
            num_iters=self.num_iters,
            visibility_threshold=self.visibility_threshold,
            num_frames=len(frames.index),
            plan=plan,
        )
