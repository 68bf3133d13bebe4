"""The common part of the offline and the online tracker: weights, device, memory plan, errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from aot.checkpoints import Weights, identify, require_checkpoint
from aot.decoding.base import FrameSource
from aot.errors import ConfigError
from aot.system.devices import DeviceOption, choose_device, describe_device, torch_memory_errors
from aot.tracking.base import TrackPoints, query_rows
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import MIN_SIDE_PX, SUPPORT_SIDE, WINDOW_LEN, Mode, Precision
from aot.tracking.network import bytes_beside_network, check_finite
from aot.types import Float32Array, QueryPoints, Tracks

if TYPE_CHECKING:
    from aot.tracking.cotracker3.model import CoTracker3


@dataclass(frozen=True)
class Network:
    """The network's options: weights, size, precision and device."""

    checkpoint: Path | None
    """File of the weights; None: the file of the released weights."""
    resolution: tuple[int, int]
    """(H, W) in px to which frames are resized."""
    precision: Precision
    """Of weights and activations."""
    device: DeviceOption
    """auto, or the type of the device."""
    compile: bool
    """Compile the network with torch.compile on first use."""


class CoTracker3Adapter(ABC):
    """Tracks with one of the two predictors; the model is loaded on first use and kept for all clips.

    Args:
        network: the network's options.
        num_iters: refinement iterations, ≥ 1.
        visibility_threshold: probability above which a point is visible, in 0..1.
        support_grid: add a grid of 36 support points, whose tracks are dropped.
        backward: track backwards before each query.
        plan: fields of the memory plan that the user has set; fields with None are chosen.

    Raises:
        ConfigError: the resolution is too small.
        CheckpointError: the weights are missing.
    """

    mode: ClassVar[Mode]

    def __init__(
        self,
        network: Network,
        *,
        num_iters: int,
        visibility_threshold: float,
        support_grid: bool,
        backward: bool,
        plan: dict[str, Any],
    ) -> None:
        if min(network.resolution) < MIN_SIDE_PX:
            raise ConfigError(
                f"tracker.resolution: got {list(network.resolution)} (height, width), expected at least "
                f"{MIN_SIDE_PX} px per side"
            )
        name = f"cotracker3_{self.mode}"
        self.checkpoint = require_checkpoint(
            name, network.checkpoint, option="tracker.checkpoint", without="tracker=lucas_kanade"
        )
        self.network = network
        self.num_iters = num_iters
        self.visibility_threshold = visibility_threshold
        self.support_grid = support_grid
        self.backward = backward
        self.fixed_plan = {key: value for key, value in plan.items() if value is not None}
        self._model: CoTracker3 | None = None

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (identify(self.checkpoint),)

    @property
    def device_name(self) -> str:
        return describe_device(choose_device(self.network.device, option="tracker.device"))

    @property
    def precision_name(self) -> str:
        return self.network.precision

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        """Track every query point on every kept frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N points; t is a source frame, x and y source px.
            lean: small blocks, and the features of a clip in a file (on a GPU: in host memory).
        Returns:
            Tracks; on its query frame a track has the query's position and is visible, regardless of the model's
            estimate. Visibility and confidence are the model's on all frames.
        Raises:
            TrackingError: a query's frame is not among the kept ones, or the positions overflow the precision.
            OutOfMemory: no plan fits, raised before any work; or memory ran out.
        """
        with self.on_clip(frames, num_points=len(queries), lean=lean) as track:
            return track(queries)

    @contextmanager
    def on_clip(self, frames: FrameSource, *, num_points: int, lean: bool = False) -> Iterator[TrackPoints]:
        """See `KeepsFeatures.on_clip`; raises what `track` does."""
        with ExitStack() as opened:
            with _memory_errors():
                model = self._loaded()
                num_tracked = self._num_tracked(num_points)
                plan = model.choose_plan(len(frames.index), num_tracked, lean=lean, fixed=self.fixed_plan)
                predict = opened.enter_context(self._predictor(model, frames, plan))

            def track(queries: QueryPoints) -> Tracks:
                rows = query_rows(frames, queries)
                points = queries.txy.copy()
                points[:, 0] = rows
                with _memory_errors():
                    tracks = predict(points)
                check_finite(tracks, network="CoTracker3", precision=self.network.precision)
                own = np.arange(len(rows))
                tracks.xy[rows, own] = queries.txy[:, 1:]
                tracks.visible[rows, own] = True
                return tracks

            yield track

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        """Upper bound in bytes of the memory that `track` needs, excluding the model.

        On a GPU with more free memory `track` uses it for larger blocks.
        """
        plan = replace(MemoryPlan.candidates(mode=self.mode, lean=lean)[0], **self.fixed_plan)
        length = WINDOW_LEN["online"] if self.mode == "online" else num_frames
        tracked = self._num_tracked(num_points)
        network = plan.peak_bytes(length, tracked, self.network.resolution, self.network.precision)
        return network + bytes_beside_network(
            num_frames=num_frames,
            num_points=tracked,
            width=width,
            height=height,
            is_read_backwards=self.mode == "online" and self.backward,
        )

    @abstractmethod
    def _predictor(
        self, model: CoTracker3, frames: FrameSource, plan: MemoryPlan
    ) -> AbstractContextManager[Callable[[Float32Array], Tracks]]:
        """A function that tracks points (N, 3): row, x, y in source px."""

    def _num_tracked(self, num_points: int) -> int:
        return num_points + (SUPPORT_SIDE**2 if self.support_grid else 0)

    def _loaded(self) -> CoTracker3:
        if self._model is None:
            from aot.tracking.cotracker3.loading import load_model

            self._model = load_model(
                self.checkpoint,
                mode=self.mode,
                resolution=self.network.resolution,
                device=choose_device(self.network.device, option="tracker.device"),
                precision=self.network.precision,
                compile=self.network.compile,
            )
        return self._model


def _memory_errors() -> AbstractContextManager[None]:
    return torch_memory_errors("CoTracker3", "use a larger frame_interval, fewer points, or a smaller plan")
