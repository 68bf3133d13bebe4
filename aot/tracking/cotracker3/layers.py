"""Layers shared by the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-6

# oneDNN's linear layer, fused with the activation that follows: the hidden layer is written once and not read back.
# PyTorch uses MKL for float32 products, which on an AMD EPYC 9005 core reaches 112 GFLOP/s, oneDNN 250; on Intel
# processors they are equal. It is a private operator of the CPU builds: without it the plain path computes the same.
_onednn_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_onednn_dtypes = {torch.float32}
if _onednn_linear is not None and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    _onednn_dtypes.add(torch.bfloat16)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`functional.linear`, with oneDNN where available."""
    if _uses_onednn(x):
        return _onednn(x, weight, bias, "none", "")
    return functional.linear(x, weight, bias)


def linear_gelu(x: Tensor, layer: nn.Linear, approximate: str) -> Tensor:
    """GELU of a linear layer, "none" (exact) or "tanh"."""
    if _uses_onednn(x):
        return _onednn(x, layer.weight, layer.bias, "gelu", approximate)
    return functional.gelu(functional.linear(x, layer.weight, layer.bias), approximate=approximate)


def _uses_onednn(x: Tensor) -> bool:
    if torch.compiler.is_compiling():  # the compiler makes kernels from the plain path
        return False
    return _onednn_linear is not None and x.device.type == "cpu" and x.dtype in _onednn_dtypes and x.numel() > 0


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, algorithm: str) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)
    return out


class Linear(nn.Linear):
    """`nn.Linear`, computed with oneDNN where available."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def normalized(x: Tensor, dtype: torch.dtype, eps: float = LAYER_NORM_EPS) -> Tensor:
    """Layer norm without affine parameters, converted to `dtype`, the type of the next layer."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps).to(dtype)
