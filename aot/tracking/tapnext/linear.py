"""Linear layers of the network: weights in the layout that is read fastest, and an activation that follows."""

from __future__ import annotations

from torch import Tensor, nn

from aot.tracking.onednn import Activation, linear, packed


class Linear(nn.Module):
    """`activation(x @ weight.T + bias)`.

    Args:
        weight: (out, in) float32.
        bias: (out,) float32.
        activation: computed together with the product; "gelu" is exact.
    """

    def __init__(self, weight: Tensor, bias: Tensor, activation: Activation = "none") -> None:
        super().__init__()
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias.contiguous())
        self._activation = activation

    def pack(self) -> None:
        """Convert the weight to the layout that is read fastest; called once the layer is complete."""
        self.weight = packed(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, in) of the layer's type: (rows, out)."""
        return linear(x, self.weight, self.bias, self._activation)
