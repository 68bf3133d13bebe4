"""Layers shared by the networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from aot.tracking.onednn import linear, packed

LAYER_NORM_EPS = 1e-6


class Linear(nn.Linear):
    """`nn.Linear`, computed with oneDNN where available."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def pack(self) -> None:
        """Convert the weight to the layout that is read fastest; called once the layer is complete."""
        self.weight = nn.Parameter(packed(self.weight.detach()), requires_grad=False)


def normalized(x: Tensor, dtype: torch.dtype, eps: float = LAYER_NORM_EPS) -> Tensor:
    """Layer norm without affine parameters, converted to `dtype`, the type of the next layer."""
    return functional.layer_norm(x, x.shape[-1:], eps=eps).to(dtype)
