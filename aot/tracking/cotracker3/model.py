"""The CoTracker3 network: estimates of every point's position in every frame, refined iteratively.

Source: CoTracker3 (arXiv:2410.11831). The released weights load unchanged (loading.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from aot.errors import ConfigError
from aot.system.compilation import share_compiled_code
from aot.system.devices import tf32
from aot.tracking.cotracker3.correlation import Support, correlate, sample_support
from aot.tracking.cotracker3.embeddings import motion_embedding, time_embedding, time_table
from aot.tracking.cotracker3.features import FeatureNet, Pyramid
from aot.tracking.cotracker3.layers import Linear
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import (
    CHANNELS,
    CORRELATION_SIZE,
    HIDDEN,
    MIN_SIDE_PX,
    MOTION_SIZE,
    NUM_LEVELS,
    PATCH,
    STRIDE,
    Mode,
    Precision,
    level_sizes,
)
from aot.tracking.cotracker3.store import Chunk, FeatureStore, make_store
from aot.tracking.cotracker3.transformer import UpdateTransformer
from aot.tracking.onednn import linear, packed

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Estimates:
    """Estimated positions, visibility and confidence of every point in every frame."""

    xy: Tensor
    """(N, T, 2) float32, in pixels of the finest features."""
    logits: Tensor
    """(N, T, 2) float32: logits of visibility and of confidence."""

    @classmethod
    def initial(cls, xy: Tensor, num_frames: int) -> Estimates:
        """Initial estimates: every point (N, 2) at rest at its query, all logits 0."""
        return cls(xy[:, None].repeat(1, num_frames, 1), xy.new_zeros(len(xy), num_frames, 2))


class _CorrelationMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Linear(PATCH * PATCH, HIDDEN)
        self.fc2 = Linear(HIDDEN, CORRELATION_SIZE)


class CoTracker3(nn.Module):
    """The network; `load_model` builds it and loads its weights.

    Args:
        mode: offline or online; selects the predictor and the defaults of plans, not the architecture.
        window_len: length of the time embedding in frames.
        resolution: (H, W) in px to which the predictors resize frames.
        precision: of weights and activations.
    """

    def __init__(self, *, mode: Mode, window_len: int, resolution: tuple[int, int], precision: Precision) -> None:
        super().__init__()
        self.mode, self.window_len, self.resolution, self.precision = mode, window_len, resolution, precision
        self.time_emb: Tensor
        self.register_buffer("time_emb", time_table(window_len))
        self.fnet = FeatureNet()
        self.updateformer = UpdateTransformer()
        self.corr_mlp = _CorrelationMLP()
        # Set by `fold`.
        self.correlation_weight: Tensor
        self.state_weight: Tensor
        self.time_weight: Tensor
        self.token_bias: Tensor

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.corr_mlp.fc1.weight.device

    @torch.inference_mode()
    def forward(
        self, video: Any, queries: Any, *, num_iters: int = 6, plan: MemoryPlan | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Track points through a video without resizing it; frames should have the model's resolution.

        Args:
            video: (T, 3, H, W) tensor or array, values 0..255.
            queries: (N, 3): frame, x, y in px of the video.
            num_iters: refinement iterations.
            plan: block sizes and feature storage; None: chosen by the free memory.
        Returns:
            coords (T, N, 2) px, visibility (T, N), confidence (T, N) in 0..1.
        Raises:
            ConfigError: the frames are too small.
            ValueError: a query's frame is outside the video.
        """
        video, queries = torch.as_tensor(video), torch.as_tensor(queries, dtype=torch.float32)
        resolution = (video.shape[2], video.shape[3])
        check_resolution(resolution)

        def frames() -> Iterator[Tensor]:
            return (frame[None].to(self.device, torch.float32) for frame in video)

        # This method holds the full video, with the online weights too.
        plan = plan or self.choose_plan(len(video), len(queries), mode="offline", resolution=resolution)
        with self.read_clip(frames, queries, resolution=resolution, plan=plan) as clip:
            estimates = clip.track(num_iters)
        visibility, confidence = estimates.logits.sigmoid().permute(2, 1, 0)
        return estimates.xy.transpose(0, 1) * STRIDE, visibility, confidence

    def choose_plan(
        self,
        num_frames: int | None,
        num_points: int,
        *,
        mode: Mode | None = None,
        resolution: tuple[int, int] | None = None,
        lean: bool = False,
        fixed: Mapping[str, Any] | None = None,
    ) -> MemoryPlan:
        """The fastest plan that fits into the free memory; see `MemoryPlan.choose`.

        Raises:
            OutOfMemory: no plan fits.
        """
        return MemoryPlan.choose(
            mode=mode or self.mode,
            num_frames=num_frames,
            num_points=num_points,
            resolution=resolution or self.resolution,
            precision=self.precision,
            device=str(self.device),
            lean=lean,
            fixed=fixed,
        )

    @contextmanager
    def read_clip(
        self,
        frames: Callable[[], Iterator[Tensor]],
        queries: Tensor,
        *,
        resolution: tuple[int, int],
        plan: MemoryPlan,
    ) -> Iterator[QueriedClip]:
        """Compute the features of a clip and the queries' support; see `open_clip` and `ClipFeatures.query`."""
        with self.open_clip(frames, resolution=resolution, plan=plan) as features:
            yield features.query(queries)

    @contextmanager
    def open_clip(
        self, frames: Callable[[], Iterator[Tensor]], *, resolution: tuple[int, int], plan: MemoryPlan
    ) -> Iterator[ClipFeatures]:
        """The features of a clip, which are computed with its first queries and released on exit.

        Args:
            frames: returns an iterator over (1, 3, H, W) frames, values 0..255, on the device; called once, or once per
                pass with the plan `features="recompute"`.
            resolution: (H, W).
            plan: block sizes and feature storage.
        """
        sizes = level_sizes(resolution)
        with closing(make_store(lambda: self.pyramids(frames(), plan), sizes, plan)) as store:
            yield ClipFeatures(self, store, resolution, plan)

    def empty_support(self, num_points: int, plan: MemoryPlan) -> Support:
        """Support of points whose query frame has not been read yet: zeros."""
        dtype = DTYPES[plan.dtype or self.precision]
        return tuple(
            torch.zeros(num_points, PATCH, CHANNELS, dtype=dtype, device=self.device) for _ in range(NUM_LEVELS)
        )

    def pyramids(self, frames: Iterator[Tensor], plan: MemoryPlan) -> Iterator[Pyramid]:
        """Features of every frame (1, 3, H, W), values 0..255, computed for `plan.feature_batch` frames at once."""
        while batch := list(islice(frames, plan.feature_batch)):
            with tf32(False):
                joined = batch[0] if len(batch) == 1 else torch.cat(batch)
                pyramid = self.fnet.pyramid(joined, DTYPES[plan.dtype or self.precision])
            for number in range(len(batch)):
                yield tuple(level[number : number + 1] for level in pyramid)

    def refine(
        self,
        estimates: Estimates,
        chunks: Callable[[], Iterator[Chunk]],
        support: Support,
        *,
        resolution: tuple[int, int],
        num_iters: int,
        plan: MemoryPlan,
        reverse: bool = False,
    ) -> None:
        """Refine estimates in place.

        Args:
            estimates: of N points in T frames.
            chunks: returns an iterator over the features of all T frames, in order; called once per iteration.
            support: of all N points.
            resolution: (H, W) of the frames in px.
            num_iters: refinement iterations.
            plan: block sizes.
            reverse: the estimates run from the last frame to the first.
        """
        num_points, num_frames = estimates.xy.shape[:2]
        tokens = estimates.xy.new_empty(num_points, num_frames, HIDDEN)
        time = time_embedding(self.time_emb, num_frames)[0]
        time = linear(time, self.time_weight, self.token_bias)
        size = (resolution[1] / STRIDE, resolution[0] / STRIDE)
        for _ in range(num_iters):  # no synchronization with the GPU inside
            for start, pyramid in chunks():
                stop = start + len(pyramid[0])
                rows = slice(num_frames - stop, num_frames - start) if reverse else slice(start, stop)
                for first in range(0, num_points, plan.query_block):
                    points = slice(first, first + plan.query_block)
                    xy = estimates.xy[points, rows]
                    block = self._correlation_tokens(
                        pyramid, xy.flip(1) if reverse else xy, [level[points] for level in support], resolution
                    )
                    tokens[points, rows] = block.flip(1) if reverse else block
            self._add_state(tokens, estimates, time, size, plan)
            update = self.updateformer(tokens, plan.max_tokens)
            estimates.xy += update[..., :2]
            estimates.logits += update[..., 2:]

    def _correlation_tokens(
        self, pyramid: Pyramid, xy: Tensor, support: list[Tensor], resolution: tuple[int, int]
    ) -> Tensor:
        """The contribution of the correlations to the tokens of N points in F frames: (N, F, HIDDEN)."""
        fc1 = self.corr_mlp.fc1
        dtype = fc1.weight.dtype
        hidden = []
        for number, size in enumerate(level_sizes(resolution)):
            samples = correlate(pyramid[number], size, xy / 2**number, support[number])
            hidden.append(linear(samples.to(dtype), fc1.weight, fc1.bias, "gelu"))
        tokens = linear(torch.cat(hidden, dim=1), self.correlation_weight)
        return tokens.view(*xy.shape[:2], HIDDEN)

    def _add_state(
        self, tokens: Tensor, estimates: Estimates, time: Tensor, size: tuple[float, float], plan: MemoryPlan
    ) -> None:
        """Add the contributions of the current estimate, the motion and the time to every token."""
        at_once = max(1, plan.max_tokens // tokens.shape[1])
        for first in range(0, len(tokens), at_once):
            points = slice(first, first + at_once)
            motion = motion_embedding(estimates.xy[points], size)
            state = torch.cat([estimates.logits[points], motion], dim=-1)
            tokens[points] += linear(state, self.state_weight).add_(time)

    def compile_parts(self) -> None:
        """Compile the networks with torch.compile on first use."""
        share_compiled_code()
        self.fnet.compile()
        for block in self.updateformer.blocks():
            block.compile(dynamic=True)

    def pack(self) -> None:
        """Convert the weights of linear layers to the layout that is read fastest; once, after they are converted.

        The heads are used merged, and the layers that `fold` has merged are not used.
        """
        layers = [*self.updateformer.blocks(), self.corr_mlp.fc1]
        for layer in (child for module in layers for child in module.modules()):
            if isinstance(layer, Linear):
                layer.pack()
        self.correlation_weight = packed(self.correlation_weight)

    def fold(self) -> None:
        """Merge consecutive linear layers, once, after the weights are loaded.

        The transformer's first layer is linear in the four correlation vectors, the estimate and the time, so
        `corr_mlp.fc2` can be merged into it, and a tensor as wide as its input is never allocated.
        """
        first, second = self.updateformer.input_transform, self.corr_mlp.fc2
        weight = first.weight.double()
        parts = torch.split(weight, [2, *[CORRELATION_SIZE] * NUM_LEVELS, MOTION_SIZE], dim=1)
        estimate, correlations, motion = parts[0], parts[1:-1], parts[-1]
        correlation_weight = torch.cat([part @ second.weight.double() for part in correlations], dim=1)
        token_bias = first.bias.double() + sum(part @ second.bias.double() for part in correlations)
        self.register_buffer("correlation_weight", correlation_weight.to(DTYPES[self.precision]), persistent=False)
        self.register_buffer("state_weight", torch.cat([estimate, motion], dim=1).float(), persistent=False)
        self.register_buffer("time_weight", weight.float(), persistent=False)
        self.register_buffer("token_bias", token_bias.float(), persistent=False)


@dataclass(frozen=True)
class ClipFeatures:
    """The features of one clip, computed once for any number of groups of queries."""

    model: CoTracker3
    store: FeatureStore
    resolution: tuple[int, int]
    """(H, W) of the frames in px."""
    plan: MemoryPlan

    def query(self, queries: Tensor) -> QueriedClip:
        """Sample the support of queries: while the features are computed, some frames at a time, or from stored ones.

        Args:
            queries: (N, 3): frame, x, y in model px.
        Raises:
            ValueError: a query's frame is outside the clip.
        """
        sizes = level_sizes(self.resolution)
        query_frames = queries[:, 0].long().tolist()
        query_xy = queries[:, 1:].to(self.model.device) / STRIDE
        support = self.model.empty_support(len(queries), self.plan)
        for start, pyramid in self.store.chunks() if self.store.is_filled else self.store.fill():
            fill_support(support, pyramid, sizes, start, query_frames, query_xy, self.plan.query_block)
        num_frames = self.store.num_frames
        beyond = [frame for frame in query_frames if not 0 <= frame < num_frames]
        if beyond:
            raise ValueError(f"query frames {beyond[:10]} are outside the clip, expected 0..{num_frames - 1}")
        return QueriedClip(self, support, query_xy)


@dataclass(frozen=True)
class QueriedClip:
    """The features of one clip and the support of queries: everything that `refine` needs from the frames."""

    features: ClipFeatures
    support: Support
    query_xy: Tensor
    """(N, 2) in pixels of the finest features."""

    @property
    def num_frames(self) -> int:
        return self.features.store.num_frames

    def track(self, num_iters: int, reverse: bool = False) -> Estimates:
        """Estimates of all points in all frames.

        Args:
            num_iters: refinement iterations.
            reverse: track the reversed clip; the estimates are in that order too.
        """
        estimates = Estimates.initial(self.query_xy, self.num_frames)
        features = self.features
        features.model.refine(
            estimates,
            features.store.chunks,
            self.support,
            resolution=features.resolution,
            num_iters=num_iters,
            plan=features.plan,
            reverse=reverse,
        )
        return estimates


def fill_support(
    support: Support,
    pyramid: Pyramid,
    sizes: list[tuple[int, int]],
    start: int,
    query_frames: list[int],
    query_xy: Tensor,
    query_block: int,
) -> None:
    """Sample, in place, the support of the queries whose frames are in a block.

    Args:
        support: of all N queries.
        pyramid: features of the block's frames.
        sizes: (h, w) of every level.
        start: number of the block's first frame.
        query_frames: frame of every query; negative: none.
        query_xy: (N, 2) in pixels of the finest features.
        query_block: queries sampled at once.
    """
    for frame in range(len(pyramid[0])):
        here = [number for number, query_frame in enumerate(query_frames) if query_frame == start + frame]
        for first in range(0, len(here), query_block):
            own = torch.tensor(here[first : first + query_block]).to(query_xy.device, non_blocking=True)
            for kept, found in zip(support, sample_support(pyramid, sizes, frame, query_xy[own])):
                kept[own] = found


def check_resolution(resolution: tuple[int, int]) -> None:
    """Raise ConfigError where the coarsest features of frames of this size (H, W) in px would be empty."""
    if min(resolution) < MIN_SIDE_PX:
        raise ConfigError(f"resolution: got {resolution} (H, W), expected at least {MIN_SIDE_PX} px per side")
