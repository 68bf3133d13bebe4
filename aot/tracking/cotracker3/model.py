"""CoTracker3: estimates of where every point is in every frame, refined again and again.

Source: CoTracker3 (arXiv:2410.11831). Keys and shapes are those of the released weights, `scaled_offline.pth` and
`scaled_online.pth`, which load unchanged; both hold the same network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from aot.checkpoints import read_state_dict
from aot.errors import ConfigError
from aot.tracking.cotracker3.correlation import Support, correlate, sample_support
from aot.tracking.cotracker3.embeddings import motion_embedding, time_embedding, time_table
from aot.tracking.cotracker3.features import FeatureNet, Pyramid
from aot.tracking.cotracker3.layers import Linear, linear, linear_gelu
from aot.tracking.cotracker3.plan import MemoryPlan
from aot.tracking.cotracker3.sizes import (
    CHANNELS,
    CORRELATION_SIZE,
    HIDDEN,
    MIN_SIDE_PX,
    MOTION_SIZE,
    NUM_LEVELS,
    PATCH,
    RESOLUTION,
    STRIDE,
    WINDOW_LEN,
    Mode,
    Precision,
    level_sizes,
)
from aot.tracking.cotracker3.store import Chunk, FeatureStore, make_store
from aot.tracking.cotracker3.transformer import UpdateTransformer

# Characters of what PyTorch says.
MAX_MESSAGE = 600

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Estimates:
    """Where every point is taken to be, before, between and after refinements."""

    xy: Tensor
    """(N, T, 2) float32, in pixels of the finest features."""
    logits: Tensor
    """(N, T, 2) float32: visibility, confidence."""

    @classmethod
    def still(cls, xy: Tensor, num_frames: int) -> Estimates:
        """Every point (N, 2) stays where it is, and nothing is known of it."""
        return cls(xy[:, None].repeat(1, num_frames, 1), xy.new_zeros(len(xy), num_frames, 2))


class _CorrelationMLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Linear(PATCH * PATCH, HIDDEN)
        self.fc2 = Linear(HIDDEN, CORRELATION_SIZE)


class CoTracker3(nn.Module):
    """The network; made and filled by `load_model`."""

    def __init__(self, *, mode: Mode, window_len: int, resolution: tuple[int, int], precision: Precision) -> None:
        super().__init__()
        self.mode, self.window_len, self.resolution, self.precision = mode, window_len, resolution, precision
        self.time_emb: Tensor
        self.register_buffer("time_emb", time_table(window_len))
        self.fnet = FeatureNet()
        self.updateformer = UpdateTransformer()
        self.corr_mlp = _CorrelationMLP()
        # Filled in by `fold`.
        self.correlation_weight: Tensor
        self.state_weight: Tensor
        self.time_weight: Tensor
        self.token_bias: Tensor

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.corr_mlp.fc1.weight.device

    @torch.inference_mode()
    def forward(
        self, video: Any, queries: Any, *, num_iters: int = 6, plan: MemoryPlan | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Track points through a video that has the model's resolution (or any other: it is not resized).

        Args:
            video: (T, 3, H, W) tensor or array, values 0..255.
            queries: (N, 3): frame, x, y in px of the video.
            num_iters: refinements.
            plan: what is held at once; None: chosen.
        Returns:
            coords (T, N, 2) px, visibility (T, N), confidence (T, N) in 0..1.
        """
        video, queries = torch.as_tensor(video), torch.as_tensor(queries, dtype=torch.float32)
        resolution = (video.shape[2], video.shape[3])
        _check_resolution(resolution)

        def frames() -> Iterator[Tensor]:
            return (frame[None].to(self.device, torch.float32) for frame in video)

        # With either weights the whole video is held at once here.
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
        """The fastest plan that fits into the memory that is there; see `MemoryPlan.choose`.

        Raises:
            OutOfMemory: none does.
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
    ) -> Iterator[ClipFeatures]:
        """Compute the features of a clip, one frame at a time, and the queries' support; let go of them at the end.

        Args:
            frames: gives an iterator of (1, 3, H, W) frames, values 0..255, on the device.
            queries: (N, 3): frame, x, y in model px.
            resolution: (H, W).
            plan: what is held at once.
        """
        sizes = level_sizes(resolution)
        query_frames = queries[:, 0].long().tolist()
        query_xy = queries[:, 1:].to(self.device) / STRIDE
        support = self.empty_support(len(queries), plan)
        with closing(make_store(lambda: (self.pyramid(frame, plan) for frame in frames()), sizes, plan)) as store:
            for start, pyramid in store.fill():
                take_support(support, pyramid, sizes, start, query_frames, query_xy, plan.query_block)
            beyond = [frame for frame in query_frames if not 0 <= frame < store.num_frames]
            if beyond:
                raise ValueError(f"query frames {beyond[:10]} are outside the clip, expected 0..{store.num_frames - 1}")
            yield ClipFeatures(self, store, support, query_xy, resolution, plan)

    def empty_support(self, num_points: int, plan: MemoryPlan) -> Support:
        """Support of points that no frame has been seen of: all zero."""
        dtype = DTYPES[plan.dtype or self.precision]
        return tuple(
            torch.zeros(num_points, CHANNELS, PATCH, dtype=dtype, device=self.device) for _ in range(NUM_LEVELS)
        )

    def pyramid(self, frame: Tensor, plan: MemoryPlan) -> Pyramid:
        """Features of one frame (1, 3, H, W), values 0..255."""
        # TF32 keeps 10 bits of every factor; for convolutions it is on by default.
        with torch.backends.cudnn.flags(allow_tf32=False):
            return self.fnet.pyramid(frame, DTYPES[plan.dtype or self.precision])

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
        """Improve estimates, in place.

        Args:
            chunks: gives the features of all T frames, in order.
            support: of all N points.
            reverse: the estimates run from the last frame to the first.
        """
        num_points, num_frames = estimates.xy.shape[:2]
        tokens = estimates.xy.new_empty(num_points, num_frames, HIDDEN)
        time = time_embedding(self.time_emb, num_frames)[0]
        time = linear(time, self.time_weight, self.token_bias)
        size = (resolution[1] / STRIDE, resolution[0] / STRIDE)
        for _ in range(num_iters):  # without a wait for the GPU
            for start, pyramid in chunks():
                stop = start + len(pyramid[0])
                rows = slice(num_frames - stop, num_frames - start) if reverse else slice(start, stop)
                for first in range(0, num_points, plan.query_block):
                    points = slice(first, first + plan.query_block)
                    xy = estimates.xy[points, rows]
                    seen = self._correlation_tokens(
                        pyramid, xy.flip(1) if reverse else xy, [level[points] for level in support], resolution
                    )
                    tokens[points, rows] = seen.flip(1) if reverse else seen
            self._add_state(tokens, estimates, time, size, plan)
            update = self.updateformer(tokens, plan.max_tokens)
            estimates.xy += update[..., :2]
            estimates.logits += update[..., 2:]

    def _correlation_tokens(
        self, pyramid: Pyramid, xy: Tensor, support: list[Tensor], resolution: tuple[int, int]
    ) -> Tensor:
        """What the correlations of (N, F) points and frames add to their tokens: (N, F, HIDDEN)."""
        dtype = self.corr_mlp.fc1.weight.dtype
        hidden = []
        for number, size in enumerate(level_sizes(resolution)):
            samples = correlate(pyramid[number], size, xy / 2**number, support[number])
            hidden.append(linear_gelu(samples.to(dtype), self.corr_mlp.fc1, "none"))
        tokens = linear(torch.cat(hidden, dim=1), self.correlation_weight)
        return tokens.view(*xy.shape[:2], HIDDEN)

    def _add_state(
        self, tokens: Tensor, estimates: Estimates, time: Tensor, size: tuple[float, float], plan: MemoryPlan
    ) -> None:
        """Add to every token its point's present estimate and motion, and the time."""
        at_once = max(1, plan.max_tokens // tokens.shape[1])
        for first in range(0, len(tokens), at_once):
            points = slice(first, first + at_once)
            motion = motion_embedding(estimates.xy[points], size)
            state = torch.cat([estimates.logits[points], motion], dim=-1)
            tokens[points] += linear(state, self.state_weight).add_(time)

    def compile_parts(self) -> None:
        """Let torch.compile make kernels of the networks on first use."""
        self.fnet.compile()
        for blocks in (
            self.updateformer.time_blocks,
            self.updateformer.space_virtual2point_blocks,
            self.updateformer.space_virtual_blocks,
            self.updateformer.space_point2virtual_blocks,
        ):
            for block in blocks:
                block.compile(dynamic=True)

    def fold(self) -> None:
        """Join layers that follow each other without anything in between, once, after the weights are loaded.

        The transformer's first layer is linear in the four correlation vectors, in the estimate and in the time. So
        `corr_mlp.fc2` becomes a part of it, and nothing as wide as its input is ever made.
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
    """The features of one clip and the support of its queries: all that refining needs of the frames."""

    model: CoTracker3
    store: FeatureStore
    support: Support
    query_xy: Tensor
    """(N, 2) in pixels of the finest features."""
    resolution: tuple[int, int]
    plan: MemoryPlan

    @property
    def num_frames(self) -> int:
        return self.store.num_frames

    def track(self, num_iters: int, reverse: bool = False) -> Estimates:
        """Estimates of all points in all frames; `reverse`: as if the clip were played backwards, and in that order."""
        estimates = Estimates.still(self.query_xy, self.num_frames)
        self.model.refine(
            estimates,
            self.store.chunks,
            self.support,
            resolution=self.resolution,
            num_iters=num_iters,
            plan=self.plan,
            reverse=reverse,
        )
        return estimates


def take_support(
    support: Support,
    pyramid: Pyramid,
    sizes: list[tuple[int, int]],
    start: int,
    query_frames: list[int],
    query_xy: Tensor,
    at_once: int,
) -> None:
    """Fill in the support of the queries whose frames the pyramid shows, from frame `start` on; `at_once` at a time."""
    for frame in range(len(pyramid[0])):
        here = [number for number, query_frame in enumerate(query_frames) if query_frame == start + frame]
        for first in range(0, len(here), at_once):
            own = torch.tensor(here[first : first + at_once], device=query_xy.device)
            for kept, found in zip(support, sample_support(pyramid, sizes, frame, query_xy[own])):
                kept[own] = found


def load_model(
    checkpoint: str | Path | Mapping[str, Any],
    *,
    mode: Mode = "offline",
    window_len: int | None = None,
    resolution: tuple[int, int] = RESOLUTION,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    compile: bool = False,
) -> CoTracker3:
    """Make the network and fill it with released weights.

    Args:
        checkpoint: a file, or what it holds: a state dict, bare or under the key `model`.
        mode: which of the two released models it is.
        window_len: frames that the time embedding was made for; None: the released model's, 60 offline, 16 online.
        resolution: (H, W) that clips are resized to before they are tracked.
        device: where it runs.
        precision: of weights and activations; fp32 is exact (TF32 is off).
        compile: let torch.compile make kernels on first use, which takes minutes.
    Raises:
        ConfigError: the checkpoint cannot be read, or is not of this network.
    """
    _check_choice("mode", mode, get_args(Mode))
    _check_choice("precision", precision, get_args(Precision))
    _check_resolution(resolution)
    state = _state_dict(checkpoint)
    model = CoTracker3(mode=mode, window_len=window_len or WINDOW_LEN[mode], resolution=resolution, precision=precision)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise ConfigError(
            f"{_named(checkpoint)} does not hold the weights of CoTracker3 {mode}; expected the released "
            f"scaled_{mode}.pth: {_shortened(str(exc))}"
        ) from exc
    model.fold()
    for name, layer in model.named_modules():
        # What is normalized, and the updates that are summed up over the refinements, stay float32.
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not name.endswith("_head"):
            layer.to(DTYPES[precision])
    model.to(device=device)
    model.fnet.to(memory_format=torch.channels_last)
    if compile:
        model.compile_parts()
    return model.eval().requires_grad_(False)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: got {value!r}, expected one of {', '.join(choices)}")


def _check_resolution(resolution: tuple[int, int]) -> None:
    if min(resolution) < MIN_SIDE_PX:
        raise ConfigError(f"resolution: got {resolution} (H, W), expected at least {MIN_SIDE_PX} px a side")


def _state_dict(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(checkpoint, Mapping):
        return read_state_dict(Path(checkpoint))
    inner = checkpoint.get("model")
    return inner if isinstance(inner, Mapping) else checkpoint


def _named(checkpoint: str | Path | Mapping[str, Any]) -> str:
    return "the mapping" if isinstance(checkpoint, Mapping) else str(checkpoint)


def _shortened(message: str) -> str:
    """Of PyTorch's pages of missing keys the beginning."""
    return message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}…"
