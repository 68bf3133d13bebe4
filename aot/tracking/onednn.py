"""oneDNN's products on a CPU: linear layers, fused with their activation, whose input is not written and read back.

PyTorch uses MKL for float32 products, which on an AMD EPYC 9005 core reaches 112 GFLOP/s, oneDNN 250, and in batches of
products with 49 columns 67 and 118; on Intel processors they are equal. Its operators for oneDNN are private and may
change, so they are tried once: without them the public ones compute the same, more slowly.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Activation = Literal["none", "gelu", "gelu_tanh"]
"""gelu is exact."""

# Rows for which weights are packed; the packed layout serves other numbers of rows too.
_PACKED_FOR_ROWS = 1024
# The difference that the trial accepts, for sums of 64 products of standard normal numbers.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.5}
_NAMES: dict[Activation, tuple[str, str]] = {
    "none": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: Activation = "none") -> Tensor:
    """`activation(x @ weight.T + bias)`, with oneDNN where it computes the type on this device.

    Args:
        x: (…, in).
        weight: (out, in), or its packed form.
        bias: (out,).
        activation: computed together with the product.
    """
    if weight.layout == torch._mkldnn or _is_used(x):  # type: ignore[attr-defined]
        if x.numel():
            return _onednn(x, weight, bias, activation)
        return x.new_empty(*x.shape[:-1], weight.shape[0])
    return _plain(x, weight, bias, activation)


def batched_product(x: Tensor, weights: Tensor) -> Tensor:
    """`x[k] @ weights[k].T` for every k: (B, rows, out).

    Args:
        x: (B, rows, in).
        weights: (B, out, in).
    """
    if x.dtype is torch.float32 and _is_used(x):
        return torch.stack([linear(rows, weight) for rows, weight in zip(x, weights, strict=True)])
    return torch.bmm(x, weights.transpose(1, 2))


def packed(weight: Tensor) -> Tensor:
    """A weight in the layout that oneDNN reads fastest; unchanged where oneDNN does not compute its type."""
    if weight.device.type != "cpu" or not computes(weight.dtype):
        return weight
    out: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
    return out


@cache
def computes(dtype: torch.dtype) -> bool:
    """Whether PyTorch's private operators exist for a type and compute the same as its public ones."""
    if dtype not in _TOLERANCE:
        return False
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((33, 64), (48, 64), (48,)))
    try:
        if dtype is torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        reordered = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
        found = [_onednn(x, each, bias, activation) for each in (weight, reordered) for activation in _NAMES]
    except (AttributeError, RuntimeError, TypeError):
        return False
    expected = [_plain(x, weight, bias, activation) for activation in _NAMES] * 2
    differences = [(left.float() - right.float()).abs().max() for left, right in zip(found, expected)]
    return max(map(float, differences)) <= _TOLERANCE[dtype]


def _is_used(x: Tensor) -> bool:
    if torch.compiler.is_compiling():  # the compiler makes kernels from the plain path
        return False
    return x.device.type == "cpu" and computes(x.dtype)


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    out = functional.linear(x, weight, bias)
    if activation == "none":
        return out
    return functional.gelu(out, approximate="tanh" if activation == "gelu_tanh" else "none")


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> Tensor:
    name, algorithm = _NAMES[activation]
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)
    return out
