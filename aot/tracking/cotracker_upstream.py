"""An adapter for the unmodified predictor of the `cotracker` package by CoTracker's authors, where it is installed.

The package is not on any package registry; code and weights are CC-BY-NC 4.0 (no commercial use). It holds every
activation of every frame and returns decisions only: both probabilities are 1 where it reports a point as visible,
else 0. `query_points=grid` gives the points that its `segm_mask` and `grid_size` would choose.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from annotated_types import Gt

from aot.checkpoints import Weights, identify, require_checkpoint
from aot.decoding.base import FrameSource
from aot.errors import CheckpointError, ConfigError
from aot.system.devices import DeviceOption, choose_device, describe_device, torch_memory_errors
from aot.system.os_errors import os_reason
from aot.tracking.base import query_rows
from aot.types import QueryPoints, Tracks

_INSTALL = "pip install git+https://github.com/facebookresearch/co-tracker"
_V2_WINDOW_LEN = 8

# Measured at 512x384 (benchmarks/tracker.py): the feature network holds 91 MB per frame of the 200 frames that it
# processes at once; afterwards each frame, its pyramid and copies of both are held, and every point's patch products.
_FEATURE_BYTES, _FEATURE_FRAMES = 100e6, 200
_FRAME_BYTES = 25e6
_POINT_BYTES = 2 * 4 * 4 * 49 * 49
_MIN_BYTES = 0.5e9


class CoTrackerUpstreamTracker:
    """Tracks with `cotracker.predictor.CoTrackerPredictor`.

    Args:
        checkpoint: file of the weights; None: `scaled_<mode>.pth`.
        mode: offline, or online: the windowed network over the full clip.
        v2: use CoTracker2; requires its checkpoint.
        window_len: frames per window, > 0; None: 60 offline, 16 online, 8 with v2.
        device: auto selects CUDA, then MPS, then the CPU.
        backward: track the reversed clip for the frames before each query; doubles the time.

    Raises:
        ConfigError: the package is not installed, or v2 has no checkpoint.
        CheckpointError: the weights are missing.
    """

    def __init__(
        self,
        checkpoint: Path | None = None,
        mode: Literal["offline", "online"] = "offline",
        v2: bool = False,
        window_len: Annotated[int, Gt(0)] | None = None,
        device: DeviceOption = "auto",
        backward: bool = False,
    ) -> None:
        if find_spec("cotracker") is None:
            raise ConfigError(
                f"tracker=cotracker_upstream: the package `cotracker` is not installed; install it with `{_INSTALL}` "
                f"(CC-BY-NC 4.0), or use tracker=cotracker3, which takes the same weights and gives the same tracks"
            )
        if v2 and checkpoint is None:
            raise ConfigError(
                "tracker.v2=true requires the weights of CoTracker2, got none; set tracker.checkpoint=FILE"
            )
        self.checkpoint = require_checkpoint(
            f"cotracker3_{mode}", checkpoint, option="tracker.checkpoint", without="tracker=lucas_kanade"
        )
        self.mode = mode
        self.v2 = v2
        self.window_len = window_len
        self.device = device
        self.backward = backward
        self._predictor: Any = None

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (identify(self.checkpoint),)

    @property
    def device_name(self) -> str:
        return describe_device(choose_device(self.device, option="tracker.device"))

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        """Track every query point on every kept frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N ≥ 1 points; t is a source frame, x and y source px.
            lean: no effect; the package has no option to save memory.
        Returns:
            Tracks; on its query frame a track has the query's position and is visible.
        Raises:
            TrackingError: a query's frame is not among the kept ones.
            OutOfMemory: memory ran out.
        """
        import torch

        from aot.tracking.cotracker3.frames import FrameReader, scale_between
        from aot.tracking.frames import SourceBlocks

        rows = query_rows(frames, queries)
        with torch_memory_errors("the cotracker package", "use tracker=cotracker3, or a larger frame_interval"):
            predictor = self._loaded()
            resolution = predictor.interp_shape
            device = next(predictor.parameters()).device
            # Resized frame by frame, with the same result as the predictor, which would resize all frames at once.
            reader = FrameReader.open(SourceBlocks(frames), resolution, device)
            num_frames = len(frames.index)
            video = torch.empty((1, max(num_frames, self._min_frames), 3, *resolution), device=device)
            for row, frame in enumerate(reader()):
                video[:, row] = frame
            video[:, num_frames:] = video[:, num_frames - 1 : num_frames]
            points = np.column_stack([rows, queries.txy[:, 1:] * scale_between(reader.size, resolution)])
            with torch.inference_mode():
                found, found_visible = predictor(
                    video,
                    queries=torch.from_numpy(points.astype(np.float32))[None].to(device),
                    backward_tracking=self.backward,
                )
        xy = found[0, :num_frames].cpu().numpy() * scale_between(resolution, reader.size)
        visible = found_visible[0, :num_frames].cpu().numpy().astype(np.bool_)
        own = np.arange(len(rows))
        xy[rows, own] = queries.txy[:, 1:]
        visible[rows, own] = True
        probability = visible.astype(np.float32)
        return Tracks(xy=xy, visible=visible, visibility=probability, confidence=probability.copy())

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        """Upper bound in bytes of the peak memory of `track`, excluding the model."""
        num_frames = max(num_frames, self._min_frames)
        features = _FEATURE_BYTES * min(num_frames, _FEATURE_FRAMES)
        held = num_frames * (_FRAME_BYTES + _POINT_BYTES * num_points)
        return int(_MIN_BYTES + features + held + 60 * width * height)

    @property
    def _min_frames(self) -> int:
        """Number of frames below which the package's windowed networks process no window and return positions (0, 0).

        A shorter clip is extended by its last frame, as the package itself extends one that does not fill its window.
        """
        is_windowed = self.v2 or self.mode == "online"
        return self._window_len - self._window_len // 2 + 1 if is_windowed else 1

    @property
    def _window_len(self) -> int:
        default = _V2_WINDOW_LEN if self.v2 else {"offline": 60, "online": 16}[self.mode]
        return self.window_len or default

    def _loaded(self) -> Any:
        if self._predictor is None:
            from cotracker.predictor import CoTrackerPredictor

            try:
                predictor = CoTrackerPredictor(
                    checkpoint=str(self.checkpoint),
                    offline=self.mode == "offline",
                    v2=self.v2,
                    window_len=self._window_len,
                )
            except OSError as exc:
                raise CheckpointError(
                    f"{self.checkpoint} cannot be read: {os_reason(exc)}; expected a file of model weights"
                ) from exc
            except RuntimeError as exc:
                raise CheckpointError(
                    f"{self.checkpoint} does not hold the weights of the cotracker package's {self.mode} model: "
                    f"{str(exc)[:600]}"
                ) from exc
            self._predictor = predictor.to(choose_device(self.device, option="tracker.device")).eval()
        return self._predictor
