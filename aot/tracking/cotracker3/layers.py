"""Layers that the networks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYER_NORM_EPS = 1e-6

# oneDNN's linear layer with the activation inside: the hidden layer is written once and never read back. A private
# operator of PyTorch's CPU builds; where it is missing the plain path computes the same.
_fused_linear = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear_gelu(x: Tensor, layer: nn.Linear, approximate: str) -> Tensor:
    """GELU of a linear layer, "none" (exact) or "tanh"."""
    if _fused_linear is not None and x.device.type == "cpu" and x.numel():
        fused: Tensor = _fused_linear(x, layer.weight, layer.bias, "gelu", [], approximate)
        return fused
    return functional.gelu(functional.linear(x, layer.weight, layer.bias), approximate=approximate)


def normalized(x: Tensor, dtype: torch.dtype, eps: float = LAYER_NORM_EPS) -> Tensor:
    """Layer norm without an affine part, in the type that the next layer computes in."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps).to(dtype)
