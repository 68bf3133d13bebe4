"""CoTracker3: estimates of where every point is in every frame, refined again and again.

Source: CoTracker3 (arXiv:2410.11831). Keys and shapes are those of the released weights, `scaled_offline.pth` and
`scaled_online.pth`, which load unchanged; both hold the same network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from aot.errors import ConfigError
from aot.tracking.cotracker3.correlation import PATCH, Support, correlate, sample_support
from aot.tracking.cotracker3.embeddings import MOTION_SIZE, motion_embedding, time_embedding, time_table
from aot.tracking.cotracker3.features import CHANNELS, NUM_LEVELS, STRIDE, FeatureNet, Pyramid, level_sizes
from aot.tracking.cotracker3.layers import Linear, linear, linear_gelu
from aot.tracking.cotracker3.plan import DTYPES, MemoryPlan, Precision
from aot.tracking.cotracker3.store import Chunk, make_store
from aot.tracking.cotracker3.transformer import HIDDEN, UpdateTransformer

Mode = Literal["offline", "online"]
WINDOW_LEN: dict[str, int] = {"offline": 60, "online": 16}
RESOLUTION = (384, 512)
CORRELATION_SIZE = 256


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
        self.register_buffer("time_emb", time_table(window_len))
        self.fnet = FeatureNet()
        self.updateformer = UpdateTransformer()
        self.corr_mlp = _CorrelationMLP()

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
        clip = self.read_clip(
            lambda: (frame[None].to(self.device, torch.float32) for frame in video),
            queries,
            resolution=(video.shape[2], video.shape[3]),
            plan=plan or self.choose_plan(len(video), len(queries), resolution=(video.shape[2], video.shape[3])),
        )
        with clip:
            estimates = clip.track(num_iters)
        visibility, confidence = estimates.logits.sigmoid().permute(2, 1, 0)
        return estimates.xy.transpose(0, 1) * STRIDE, visibility, confidence

    def choose_plan(
        self, num_frames: int | None, num_points: int, *, resolution: tuple[int, int] | None = None, lean: bool = False
    ) -> MemoryPlan:
        """The fastest plan that fits into the memory that is there.

        Raises:
            OutOfMemory: none does.
        """
        return MemoryPlan.choose(
            num_frames=num_frames,
            num_points=num_points,
            resolution=resolution or self.resolution,
            precision=self.precision,
            device=self.device,
            lean=lean,
        )

    def read_clip(
        self,
        frames: Callable[[], Iterator[Tensor]],
        queries: Tensor,
        *,
        resolution: tuple[int, int],
        plan: MemoryPlan,
    ) -> ClipFeatures:
        """Compute the features of a clip, one frame at a time, and the queries' support.

        Args:
            frames: gives an iterator of (1, 3, H, W) frames, values 0..255, on the device.
            queries: (N, 3): frame, x, y in model px.
            resolution: (H, W).
        """
        return ClipFeatures(self, frames, queries, resolution, plan)

    def pyramid(self, frame: Tensor, plan: MemoryPlan) -> Pyramid:
        """Features of one frame (1, 3, H, W), values 0..255."""
        # TF32 would move tracks by tenths of a pixel; it is on by default for convolutions.
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
        time = linear(time, self.input_weight, self.token_bias)
        size = estimates.xy.new_tensor([resolution[1] / STRIDE, resolution[0] / STRIDE])
        for _ in range(num_iters):
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

    def _add_state(self, tokens: Tensor, estimates: Estimates, time: Tensor, size: Tensor, plan: MemoryPlan) -> None:
        """Add to every token its point's present estimate and motion, and the time."""
        at_once = max(1, plan.max_tokens // tokens.shape[1])
        for first in range(0, len(tokens), at_once):
            points = slice(first, first + at_once)
            motion = motion_embedding(estimates.xy[points], size)
            state = torch.cat([estimates.logits[points], motion], dim=-1)
            tokens[points] += linear(state, self.state_weight).add_(time)

    def fold(self) -> None:
        """Join layers that follow each other without anything in between, once, after the weights are loaded.

        The transformer's first layer is linear in the four correlation vectors, in the estimate and in the time. So
        `corr_mlp.fc2` becomes a part of it, and nothing as wide as its input is ever made.
        """
        first, second = self.updateformer.input_transform, self.corr_mlp.fc2
        weight = first.weight.double()
        parts = weight.split([2, *[CORRELATION_SIZE] * NUM_LEVELS, MOTION_SIZE], dim=1)
        estimate, correlations, motion = parts[0], parts[1:-1], parts[-1]
        correlation_weight = torch.cat([part @ second.weight.double() for part in correlations], dim=1)
        token_bias = first.bias.double() + sum(part @ second.bias.double() for part in correlations)
        self.register_buffer("correlation_weight", correlation_weight.to(DTYPES[self.precision]), persistent=False)
        self.register_buffer("state_weight", torch.cat([estimate, motion], dim=1).float(), persistent=False)
        self.register_buffer("input_weight", weight.float(), persistent=False)
        self.register_buffer("token_bias", token_bias.float(), persistent=False)


class ClipFeatures:
    """The features of one clip and the support of its queries: all that refining needs of the frames."""

    def __init__(
        self,
        model: CoTracker3,
        frames: Callable[[], Iterator[Tensor]],
        queries: Tensor,
        resolution: tuple[int, int],
        plan: MemoryPlan,
    ) -> None:
        self._model, self._resolution, self._plan = model, resolution, plan
        sizes = level_sizes(resolution)
        self._store = make_store(lambda: (model.pyramid(frame, plan) for frame in frames()), sizes, plan)
        query_frames = queries[:, 0].long().tolist()
        self._query_xy = queries[:, 1:].to(model.device) / STRIDE
        self.support = empty_support(len(queries), DTYPES[plan.dtype or model.precision], model.device)
        for start, pyramid in self._store.fill():
            take_support(self.support, pyramid, sizes, start, query_frames, self._query_xy)
        self.num_frames = self._store.num_frames
        beyond = [frame for frame in query_frames if not 0 <= frame < self.num_frames]
        if beyond:
            self._store.close()
            raise ValueError(f"query frames {beyond[:10]} are outside the clip, expected 0..{self.num_frames - 1}")

    def track(self, num_iters: int, reverse: bool = False) -> Estimates:
        """Estimates of all points in all frames; `reverse`: as if the clip were played backwards, and in that order."""
        estimates = Estimates.still(self._query_xy, self.num_frames)
        self._model.refine(
            estimates,
            self._store.chunks,
            self.support,
            resolution=self._resolution,
            num_iters=num_iters,
            plan=self._plan,
            reverse=reverse,
        )
        return estimates

    def __enter__(self) -> ClipFeatures:
        return self

    def __exit__(self, *error: object) -> None:
        self._store.close()


def empty_support(num_points: int, dtype: torch.dtype, device: torch.device) -> Support:
    """Support of points that no frame has been seen of: all zero."""
    return tuple(torch.zeros(num_points, CHANNELS, PATCH, dtype=dtype, device=device) for _ in range(NUM_LEVELS))


def take_support(
    support: Support,
    pyramid: Pyramid,
    sizes: list[tuple[int, int]],
    start: int,
    query_frames: list[int],
    query_xy: Tensor,
) -> None:
    """Fill in the support of the queries whose frames the pyramid shows, from frame `start` on."""
    for frame in range(len(pyramid[0])):
        here = [number for number, query_frame in enumerate(query_frames) if query_frame == start + frame]
        if here:
            own = torch.tensor(here, device=query_xy.device)
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
) -> CoTracker3:
    """Make the network and fill it with released weights.

    Args:
        checkpoint: a file, or what it holds: a state dict, bare or under the key `model`.
        mode: which of the two released models it is.
        window_len: frames that the time embedding was made for; None: the released model's, 60 offline, 16 online.
        resolution: (H, W) that clips are resized to before they are tracked.
        precision: of weights and activations; fp32 is exact (TF32 is off).
    Raises:
        ConfigError: the checkpoint cannot be read, or is not of this network.
    """
    if mode not in WINDOW_LEN:
        raise ConfigError(f"mode: got {mode!r}, expected one of {', '.join(WINDOW_LEN)}")
    if precision not in DTYPES:
        raise ConfigError(f"precision: got {precision!r}, expected one of {', '.join(DTYPES)}")
    state = _state_dict(checkpoint)
    model = CoTracker3(mode=mode, window_len=window_len or WINDOW_LEN[mode], resolution=resolution, precision=precision)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as exc:
        raise ConfigError(f"{_named(checkpoint)} does not hold the weights of CoTracker3 {mode}: {exc}") from exc
    model.fold()
    for name, layer in model.named_modules():
        # What is normalized, and the updates that are summed up over the refinements, stay float32.
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and not name.endswith("_head"):
            layer.to(DTYPES[precision])
    model.to(device=device)
    model.fnet.to(memory_format=torch.channels_last)
    return model.eval().requires_grad_(False)


def _state_dict(checkpoint: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(checkpoint, Mapping):
        try:
            checkpoint = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except OSError as exc:
            raise ConfigError(f"{checkpoint} cannot be read: {exc}") from exc
        except Exception as exc:
            raise ConfigError(f"{checkpoint} is not a file of weights: {exc}") from exc
    if not isinstance(checkpoint, Mapping):
        raise ConfigError(f"the checkpoint holds a {type(checkpoint).__name__}, expected a state dict")
    inner = checkpoint.get("model")
    return inner if isinstance(inner, Mapping) else checkpoint


def _named(checkpoint: str | Path | Mapping[str, Any]) -> str:
    return "the mapping" if isinstance(checkpoint, Mapping) else str(checkpoint)
