"""Linear layers, with an activation that follows; on a CPU computed by oneDNN from packed weights."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["none", "gelu", "gelu_tanh"]

_ALGORITHMS: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
# Rows for which weights are packed; the packed layout serves other numbers of rows too.
_PACKED_FOR_ROWS = 1024
# The difference that the self-test accepts, for sums of 64 products of standard normal numbers.
_SELF_TEST_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.5}


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
        self._packed: Tensor | None = None

    def pack(self) -> None:
        """Replace the weight by its packed form, where oneDNN computes this type; called once the layer is complete."""
        if self.weight.device.type == "cpu" and is_onednn_right(self.weight.dtype):
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _PACKED_FOR_ROWS)
            self.weight = self.weight.new_empty(0)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, in) of the layer's type: (rows, out)."""
        if self._packed is not None:
            return _onednn(x, self._packed, self.bias, self._activation)
        return _plain(x, self.weight, self.bias, self._activation)


def product(x: Tensor, y: Tensor) -> Tensor:
    """`x @ y.T` of two matrices of one type."""
    if x.device.type == "cpu" and not torch.compiler.is_compiling() and is_onednn_right(x.dtype):
        return _onednn(x, y, None, "none")
    return functional.linear(x, y)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    out = functional.linear(x, weight, bias)
    if activation == "none":
        return out
    return functional.gelu(out, approximate="tanh" if activation == "gelu_tanh" else "none")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    name, algorithm = _ALGORITHMS[activation]
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)
    return out


@cache
def is_onednn_right(dtype: torch.dtype) -> bool:
    """Whether PyTorch's private operators for oneDNN exist and compute the same as its public ones.

    PyTorch computes float32 products with MKL, which reaches half of oneDNN's speed on AMD processors. The operators
    are private and may change, so they are tried once; without them the public ones compute the same more slowly.
    """
    if dtype not in _SELF_TEST_TOLERANCE:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((33, 64), (48, 64), (48,)))
    try:
        if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
        found = [_onednn(x, each, bias, name) for each in (packed, weight) for name in _ALGORITHMS]
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = [_plain(x, weight, bias, name) for name in _ALGORITHMS] * 2
    return all(
        bool((left.float() - right.float()).abs().max() <= _SELF_TEST_TOLERANCE[dtype])
        for left, right in zip(found, expected)
    )
