"""The attention block: a layer of a vision transformer over all tokens of one frame.

Source: TRecViT (arXiv:2412.14294), which takes torchvision's encoder block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.onednn import linear
from aot.tracking.tapnext.linear import Linear
from aot.tracking.tapnext.weights import WeightReader

LAYER_NORM_EPS = 1e-6


class AttentionBlock(nn.Module):
    """`x + attention(norm(x))`, then `x + MLP(norm(x))`.

    Scales and biases of both norms, and the scale of the attention's scores, are folded into the linear layers.
    """

    def __init__(self, weights: WeightReader, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        attention = weights.under("self_attention")
        weight, bias = attention.take("in_proj_weight", 3 * width, width), attention.take("in_proj_bias", 3 * width)
        weight, bias = _fold_norm(weights, "ln_1", weight, bias)
        weight[:width] *= (width // num_heads) ** -0.5
        bias[:width] *= (width // num_heads) ** -0.5
        self.to_query = Linear(weight[:width], bias[:width])
        self.to_key_value = Linear(weight[width:], bias[width:])
        self.out = Linear(attention.take("out_proj.weight", width, width), attention.take("out_proj.bias", width))
        up = weights.take("mlp.0.weight", None, width)
        hidden = len(up)
        self.up = Linear(*_fold_norm(weights, "ln_2", up, weights.take("mlp.0.bias", hidden)), "gelu")
        self.down = Linear(weights.take("mlp.3.weight", width, hidden), weights.take("mlp.3.bias", width))

    def forward(self, x: Tensor, first: int, log_count: float, rows_at_once: int, dtype: torch.dtype) -> None:
        """Update tokens in place.

        Args:
            x: (tokens, D) float32.
            first: only the tokens from this one on are updated; they attend to all.
            log_count: logarithm of the number of equal tokens for which the last one stands.
            rows_at_once: tokens for which scores and hidden layers exist at once.
            dtype: of the linear layers and the attention.
        """
        normed = _normalized(x, dtype)
        key, value = self.to_key_value(normed).chunk(2, dim=1)
        query = self.to_query(normed[first:])
        attend = _attended_by_head if x.device.type == "cpu" else _attended
        x[first:] += self.out(attend(query, key, value, self._num_heads, log_count, rows_at_once))
        for start in range(first, len(x), rows_at_once):
            rows = x[start : start + rows_at_once]
            rows += self.down(self.up(_normalized(rows, dtype)))


def _attended(query: Tensor, key: Tensor, value: Tensor, num_heads: int, log_count: float, _rows: int) -> Tensor:
    """(queries, D): the attention of all heads at once."""
    query, key, value = (each.view(len(each), num_heads, -1).transpose(0, 1)[None] for each in (query, key, value))
    mask = None
    if log_count:
        mask = query.new_zeros(query.shape[2], key.shape[2])
        mask[:, -1] = log_count
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    return attended[0].transpose(0, 1).flatten(1)


def _attended_by_head(
    query: Tensor, key: Tensor, value: Tensor, num_heads: int, log_count: float, rows_at_once: int
) -> Tensor:
    """(queries, D): the attention head by head with contiguous operands, which is faster on a CPU."""
    out = torch.empty_like(query)
    size = query.shape[1] // num_heads
    for head in range(num_heads):
        columns = slice(head * size, (head + 1) * size)
        own_key, own_value = key[:, columns].contiguous(), value[:, columns].t().contiguous()
        for start in range(0, len(query), rows_at_once):
            rows = slice(start, start + rows_at_once)
            scores = linear(query[rows, columns].contiguous(), own_key)
            scores[:, -1] += log_count
            out[rows, columns] = linear(scores.softmax(dim=1), own_value)
    return out


def _normalized(x: Tensor, dtype: torch.dtype) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS).to(dtype)


def _fold_norm(weights: WeightReader, name: str, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer that is given the normalised input without the norm's own scale and bias."""
    scale, shift = (weights.take(f"{name}.{part}", weight.shape[1]) for part in ("weight", "bias"))
    return weight * scale, bias + weight @ shift
