"""The update transformer: attention along every track, and between the tracks of a frame through virtual tracks.

Tokens of points (N, T, D) are updated in place, block by block: a block is some tracks along time, and some frames
across tracks. So besides the tokens only one block's activations and attention scores exist.

Source: CoTracker3 (arXiv:2410.11831), section 3.1; virtual tracks: CoTracker (arXiv:2307.07635).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.cotracker3.layers import Linear, normalized
from aot.tracking.cotracker3.sizes import HIDDEN, NUM_HEADS, NUM_ROUNDS, NUM_VIRTUAL, TOKEN_SIZE
from aot.tracking.onednn import linear

CONTEXT_NORM_EPS = 1e-5


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.to_q = Linear(HIDDEN, HIDDEN)
        self.to_kv = Linear(HIDDEN, 2 * HIDDEN)
        self.to_out = Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attention from x (B, I, D) to context (B, J, D): (B, I, D)."""
        query = self.to_q(x).unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2)
        key, value = (part.unflatten(-1, (NUM_HEADS, -1)).transpose(1, 2) for part in self.to_kv(context).chunk(2, -1))
        attended = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.to_out(attended.transpose(1, 2).flatten(2))
        return out

    def of_equal_tokens(self, x: Tensor) -> Tensor:
        """Self-attention among any number of equal tokens, which is the projected value of one of them."""
        _, value = self.to_kv(x).chunk(2, -1)
        out: Tensor = self.to_out(value)
        return out


class _MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = Linear(HIDDEN, 4 * HIDDEN)
        self.fc2 = Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(linear(x, self.fc1.weight, self.fc1.bias, "gelu_tanh"))
        return out


class _SelfBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = _Attention()
        self.mlp = _MLP()

    def forward(self, x: Tensor) -> Tensor:
        """Self-attention in x (B, I, D) float32; residuals stay float32 for any type of the layers."""
        dtype = self.mlp.fc1.weight.dtype
        inner = normalized(x, dtype)
        x = x + self.attn(inner, inner)
        return x.add_(self.mlp(normalized(x, dtype)))

    def of_equal_tokens(self, x: Tensor) -> Tensor:
        dtype = self.mlp.fc1.weight.dtype
        x = x + self.attn.of_equal_tokens(normalized(x, dtype))
        return x.add_(self.mlp(normalized(x, dtype)))


class _CrossBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm_context = nn.LayerNorm(HIDDEN, eps=CONTEXT_NORM_EPS)
        self.cross_attn = _Attention()
        self.mlp = _MLP()

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Attention from x (B, I, D) to context (B, J, D), both float32."""
        dtype = self.mlp.fc1.weight.dtype
        x = x + self.cross_attn(normalized(x, dtype), self.norm_context(context).to(dtype))
        return x.add_(self.mlp(normalized(x, dtype)))


class UpdateTransformer(nn.Module):
    """Computes updates of the estimates from the tokens of all points in all frames."""

    def __init__(self) -> None:
        super().__init__()
        self.input_transform = Linear(TOKEN_SIZE, HIDDEN)
        self.virual_tracks = nn.Parameter(torch.zeros(1, NUM_VIRTUAL, 1, HIDDEN))  # the checkpoints' spelling
        self.time_blocks = nn.ModuleList(_SelfBlock() for _ in range(NUM_ROUNDS))
        self.space_virtual2point_blocks = nn.ModuleList(_CrossBlock() for _ in range(NUM_ROUNDS))
        self.space_virtual_blocks = nn.ModuleList(_SelfBlock() for _ in range(NUM_ROUNDS))
        self.space_point2virtual_blocks = nn.ModuleList(_CrossBlock() for _ in range(NUM_ROUNDS))
        self.flow_head = Linear(HIDDEN, 2)
        self.vis_conf_head = Linear(HIDDEN, 2)

    def blocks(self) -> list[nn.Module]:
        """All blocks, of all rounds."""
        kinds = (
            self.time_blocks,
            self.space_virtual2point_blocks,
            self.space_virtual_blocks,
            self.space_point2virtual_blocks,
        )
        return [block for kind in kinds for block in kind]

    def forward(self, tokens: Tensor, max_tokens: int) -> Tensor:
        """Compute an update.

        Args:
            tokens: (N, T, HIDDEN) float32; overwritten.
            max_tokens: tokens processed at once; at least those of one track or one frame.
        Returns:
            (N, T, 4): change of x, y, and of the visibility and confidence logits.
        """
        num_points, num_frames = tokens.shape[:2]
        # The virtual tracks are equal in every frame and every iteration until their first attention to the points.
        first = cast(_SelfBlock, self.time_blocks[0])
        virtual = first.of_equal_tokens(self.virual_tracks[0].transpose(0, 1))
        virtual = virtual.repeat(num_frames, 1, 1)
        points_at_once = max(1, max_tokens // num_frames)
        frames_at_once = max(1, max_tokens // (num_points + NUM_VIRTUAL))
        for number in range(NUM_ROUNDS):
            if number:
                virtual = self._along_time(number, virtual.transpose(0, 1), points_at_once).transpose(0, 1)
            self._along_time(number, tokens, points_at_once)
            for start in range(0, num_frames, frames_at_once):
                frames = slice(start, start + frames_at_once)
                virtual[frames] = self._across_tracks(number, tokens[:, frames], virtual[frames], max_tokens)
        return self._update(tokens)

    def _along_time(self, number: int, tracks: Tensor, points_at_once: int) -> Tensor:
        for start in range(0, len(tracks), points_at_once):
            block = tracks[start : start + points_at_once]
            block.copy_(self.time_blocks[number](block))
        return tracks

    def _across_tracks(self, number: int, tokens: Tensor, virtual: Tensor, max_tokens: int) -> Tensor:
        points = tokens.transpose(0, 1)
        virtual = self.space_virtual2point_blocks[number](virtual, points)
        virtual = self.space_virtual_blocks[number](virtual)
        points_at_once = max(1, max_tokens // len(virtual))
        for start in range(0, points.shape[1], points_at_once):
            block = points[:, start : start + points_at_once]
            block.copy_(self.space_point2virtual_blocks[number](block, virtual))
        return virtual

    def _update(self, tokens: Tensor) -> Tensor:
        weight = torch.cat([self.flow_head.weight, self.vis_conf_head.weight])
        bias = torch.cat([self.flow_head.bias, self.vis_conf_head.bias])
        return linear(tokens, weight, bias)
