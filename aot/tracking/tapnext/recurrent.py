"""The recurrent block: for every token by itself, a linear recurrence over the frames, then a gated MLP.

Source: TRecViT (arXiv:2412.14294); the recurrence is Griffin's RG-LRU (arXiv:2402.19427).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.tapnext.linear import Linear
from aot.tracking.tapnext.sizes import CONVOLUTION_WIDTH
from aot.tracking.tapnext.weights import WeightReader

RMS_NORM_EPS = 1e-6
# The recurrence's decay per frame is exp(-8 · gate · softplus(a_param)).
_DECAY = 8.0


@dataclass
class RecurrentState:
    """What one block keeps of the frames so far, float32 whatever the precision: 4 R numbers per token."""

    hidden: Tensor
    """(tokens, R)."""
    inputs: Tensor
    """(3, tokens, R): the convolution's last inputs, the oldest first."""

    @classmethod
    def empty(cls, num_tokens: int, width: int, device: torch.device) -> RecurrentState:
        """Before the first frame: zeros."""
        inputs = torch.zeros(CONVOLUTION_WIDTH - 1, num_tokens, width, device=device)
        return cls(torch.zeros(num_tokens, width, device=device), inputs)

    def copy_token(self, source: int, target: slice) -> None:
        """Give other tokens the state of one token."""
        self.hidden[target] = self.hidden[source].clone()
        self.inputs[:, target] = self.inputs[:, source : source + 1].clone()

    def extended(self, num_tokens: int) -> RecurrentState:
        """A copy with room for more tokens."""
        larger = self.empty(num_tokens, self.hidden.shape[1], self.hidden.device)
        larger.hidden[: len(self.hidden)] = self.hidden
        larger.inputs[:, : len(self.hidden)] = self.inputs
        return larger


class RecurrentBlock(nn.Module):
    """`x + recurrence(norm(x))`, then `x + MLP(norm(x))`.

    The scales of both norms are folded into the linear layers that follow them.
    """

    def __init__(self, weights: WeightReader, width: int, recurrent_width: int) -> None:
        super().__init__()
        recurrent = weights.under("recurrent_block")
        scale = 1 + weights.take("temporal_pre_norm.scale", width)

        def first(name: str) -> tuple[Tensor, Tensor]:
            weight = recurrent.take(f"{name}.weight", recurrent_width, width)
            return weight * scale, recurrent.take(f"{name}.bias", recurrent_width)

        self.linear_y = Linear(*first("linear_y"), "gelu_tanh")
        self.linear_x = Linear(*first("linear_x"))
        self.linear_out = Linear(
            recurrent.take("linear_out.weight", width, recurrent_width), recurrent.take("linear_out.bias", width)
        )
        self.recurrence = Recurrence(recurrent, recurrent_width)
        scale = 1 + weights.take("channel_pre_norm.scale", width)
        up = weights.take("mlp_block.ffw_up.w", 2, width, None)
        hidden = up.shape[2]
        up = up.transpose(1, 2) * scale
        up_bias = weights.take("mlp_block.ffw_up.b", 2, 1, 1, hidden).view(2, hidden)
        self.up_gate = Linear(up[0], up_bias[0], "gelu_tanh")
        self.up = Linear(up[1], up_bias[1])
        self.down = Linear(
            weights.take("mlp_block.ffw_down.weight", width, hidden), weights.take("mlp_block.ffw_down.bias", width)
        )

    def forward(self, x: Tensor, hidden: Tensor, inputs: Tensor, is_first: bool, dtype: torch.dtype) -> None:
        """Update tokens and their state in place.

        Args:
            x: (tokens, D) float32.
            hidden, inputs: the state of these tokens, as in `RecurrentState`.
            is_first: whether this is the first frame.
            dtype: of the linear layers.
        """
        normed = rms_normalized(x).to(dtype)
        gate = self.linear_y(normed)
        recurred = self.recurrence(self.linear_x(normed).float(), hidden, inputs, is_first)
        x += self.linear_out((recurred * gate).to(dtype))
        normed = rms_normalized(x).to(dtype)
        x += self.down(self.up_gate(normed).mul_(self.up(normed)))


class Recurrence(nn.Module):
    """A convolution over the last four frames, then the RG-LRU; both in float32."""

    def __init__(self, weights: WeightReader, width: int) -> None:
        super().__init__()
        self.kernel: Tensor
        self.kernel_bias: Tensor
        self.gate_weight: Tensor
        self.gate_bias: Tensor
        self.log_decay: Tensor
        self.register_buffer("kernel", weights.take("conv_1d.w", CONVOLUTION_WIDTH, width))
        self.register_buffer("kernel_bias", weights.take("conv_1d.b", width))
        gates = weights.under("rg_lru")
        input_weight = gates.take("input_gate.w", None, None, None)
        num_blocks, block = input_weight.shape[:2]
        pairs = [
            (gates.take(f"{name}.w", num_blocks, block, block), gates.take(f"{name}.b", num_blocks, block))
            for name in ("input_gate", "a_gate")
        ]
        # Both gates as one batched product.
        self.register_buffer("gate_weight", torch.cat([weight for weight, _ in pairs], dim=2))
        self.register_buffer("gate_bias", torch.cat([bias for _, bias in pairs], dim=1)[:, None])
        decay = -_DECAY * functional.softplus(gates.take("a_param", width))
        self.register_buffer("log_decay", decay.view(num_blocks, 1, block))

    def forward(self, x: Tensor, hidden: Tensor, inputs: Tensor, is_first: bool) -> Tensor:
        """(tokens, R) of this frame: the new hidden state; `hidden` and `inputs` are updated in place."""
        convolved = torch.addcmul(self.kernel_bias, x, self.kernel[-1])
        for age in range(CONVOLUTION_WIDTH - 1):
            convolved.addcmul_(inputs[age], self.kernel[age])
        inputs[:-1] = inputs[1:].clone()
        inputs[-1] = x
        num_blocks, block = self.gate_weight.shape[:2]
        blocks = convolved.view(len(x), num_blocks, block).transpose(0, 1)
        gates = torch.baddbmm(self.gate_bias, blocks, self.gate_weight).sigmoid_()
        input_gate, decay_gate = gates.chunk(2, dim=2)
        log_decay = decay_gate * self.log_decay
        new = input_gate * blocks
        if not is_first:
            new *= torch.expm1(2 * log_decay).neg_().sqrt_()
        state = hidden.view(len(x), num_blocks, block).transpose(0, 1)
        state.mul_(log_decay.exp_()).add_(new)
        return hidden


def rms_normalized(x: Tensor) -> Tensor:
    """`x` divided by the root of its mean square over the last dimension."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + RMS_NORM_EPS)
