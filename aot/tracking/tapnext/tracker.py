"""TAPNext++ and TAPNext: a causal tracker with a state of constant size, for clips of any length.

Source: TAPNext (arXiv:2504.05579) and TAPNext++. Code and weights of the authors are Apache-2.0, without a restriction
on use; docs/tapnext.md documents the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge, Gt

from aot.checkpoints import Weights, identify, require_checkpoint
from aot.decoding.base import FrameSource
from aot.errors import ConfigError
from aot.system.devices import DeviceOption, choose_device, describe_device, torch_memory_errors
from aot.tracking.base import query_rows
from aot.tracking.network import bytes_beside_network, check_finite
from aot.tracking.tapnext.sizes import CPU_ROWS, GPU_ROWS, LEAN_ROWS, PATCH, PrecisionOption, Sizes, VisibilityRule
from aot.types import QueryPoints, Tracks

if TYPE_CHECKING:
    import torch

    from aot.tracking.tapnext.model import TAPNext

_FLOAT = 4
# Float32 numbers per token beside the state: the token, its norm, query, key, value, attention and output, and copies.
_NUMBERS_PER_TOKEN = 12
# Hidden layers of an MLP that exist at once.
_HIDDEN_LAYERS = 4
# Scores and their softmax, of the rows that are computed at once.
_SCORES = 3
# Workspace of the linear algebra libraries and allocators.
_LIBRARY_BYTES = 64 * 2**20
# The weights whose resolution is not 256.
_CHECKPOINT_OF = {512: "tapnextpp_512"}


class TAPNextTracker:
    """Tracks all points of a clip in one pass, forwards, and with `backward` in a second one.

    Args:
        checkpoint: file of the weights; None: `tapnextpp_ckpt.pt`, or `tapnextpp_512.ckpt` with
            input_resolution=512.
        precision: of linear layers and attention; fp32 is exact, bf16 and fp16 are faster where the hardware supports
            them; the recurrent state is always float32. auto: bf16 on a GPU that computes it, fp32 elsewhere.
        device: auto selects CUDA, then MPS, then the CPU.
        compile: compile the network with torch.compile on first use: takes minutes, then faster on CUDA.
        input_resolution: px of a side to which frames are resized for the model: 256, or 512 for the weights that were
            trained at it; a multiple of 8.
        backward: track the reversed clip for the frames before each query; doubles the time.
        visibility_rule: head: a point is visible where its visibility is above 0.5; certainty: where its product with
            the certainty is; None: as published for the weights.
        image_size: px of a side of the square in which the model locates queries, > 0; of the published weights 256.
        num_heads: of the model's attention, ≥ 1; of the published weights 12.

    Raises:
        ConfigError: input_resolution is no multiple of 8.
        CheckpointError: the weights are missing.
    """

    def __init__(
        self,
        checkpoint: Path | None = None,
        precision: PrecisionOption = "auto",
        device: DeviceOption = "auto",
        compile: bool = False,
        input_resolution: Annotated[int, Gt(0)] = 256,
        backward: bool = False,
        visibility_rule: VisibilityRule | None = None,
        image_size: Annotated[int, Gt(0)] = 256,
        num_heads: Annotated[int, Ge(1)] = 12,
    ) -> None:
        if input_resolution % PATCH:
            raise ConfigError(f"tracker.input_resolution={input_resolution}: expected a multiple of {PATCH}")
        self.checkpoint = require_checkpoint(
            _CHECKPOINT_OF.get(input_resolution, "tapnextpp"),
            checkpoint,
            option="tracker.checkpoint",
            without="tracker=lucas_kanade",
        )
        self.precision, self.device, self.compile = precision, device, compile
        self.input_resolution, self.backward, self.visibility_rule = input_resolution, backward, visibility_rule
        self.image_size, self.num_heads = image_size, num_heads
        self._model: TAPNext | None = None

    @property
    def weights(self) -> tuple[Weights, ...]:
        return (identify(self.checkpoint),)

    @property
    def device_name(self) -> str:
        return describe_device(self._chosen_device())

    @property
    def precision_name(self) -> str:
        from aot.tracking.tapnext.loading import chosen_precision

        return chosen_precision(self.precision, self._chosen_device())

    def track(self, frames: FrameSource, queries: QueryPoints, *, lean: bool = False) -> Tracks:
        """Track every query point on every kept frame.

        Args:
            frames: the kept frames; every query's frame is among them.
            queries: N points; t is a source frame, x and y source px.
            lean: fewer tokens at once.
        Returns:
            Tracks; on its query frame a track has the query's position and is visible, regardless of the model's
            estimate. `confidence` is the certainty of the position. Without `backward`, a point is not visible before
            its query.
        Raises:
            TrackingError: a query's frame is not among the kept ones, or the positions overflow the precision.
            OutOfMemory: memory ran out.
        """
        from aot.tracking.frames import SourceBlocks
        from aot.tracking.tapnext.tracking import track

        points = queries.txy.copy()
        points[:, 0] = query_rows(frames, queries)
        last = int(points[:, 0].max(initial=0))
        reverse = SourceBlocks(frames, np.ascontiguousarray(frames.index[last::-1])) if self.backward else None
        with torch_memory_errors("TAPNext", "use fewer points"):
            tracks = track(
                self._loaded(),
                SourceBlocks(frames),
                points,
                backward=self.backward,
                backward_frames=reverse,
                rows_at_once=LEAN_ROWS if lean else None,
            )
        check_finite(tracks, network="TAPNext", precision=self.precision_name)
        return tracks

    def needed_bytes(self, *, num_frames: int, num_points: int, width: int, height: int, lean: bool) -> int:
        """Upper bound in bytes of the memory that `track` needs, excluding the model; only results grow with frames."""
        sizes = Sizes(image_size=self.image_size, input_resolution=self.input_resolution)
        num_tokens = sizes.num_image_tokens + num_points + 1
        at_once = LEAN_ROWS if lean else GPU_ROWS if self.device_name.startswith("cuda") else CPU_ROWS
        rows = min(at_once, num_tokens)
        tokens = num_tokens * (sizes.state_numbers_per_token + _NUMBERS_PER_TOKEN * sizes.width)
        heads = sizes.num_heads if at_once == GPU_ROWS else 1
        block = rows * (_HIDDEN_LAYERS * 4 * sizes.width + _SCORES * heads * num_tokens)
        return (
            _FLOAT * (tokens + block)
            + bytes_beside_network(
                num_frames=num_frames,
                num_points=num_points,
                width=width,
                height=height,
                is_read_backwards=self.backward,
            )
            + _LIBRARY_BYTES
        )

    def _chosen_device(self) -> torch.device:
        return choose_device(self.device, option="tracker.device")

    def _loaded(self) -> TAPNext:
        if self._model is None:
            from aot.tracking.tapnext.loading import load_model

            self._model = load_model(
                self.checkpoint,
                image_size=self.image_size,
                num_heads=self.num_heads,
                input_resolution=self.input_resolution,
                device=self._chosen_device(),
                precision=self.precision,
                visibility_rule=self.visibility_rule,
                compile=self.compile,
            )
        return self._model
