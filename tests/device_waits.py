"""Finds where the host would wait for a GPU, on a machine that has none."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Calls that read a tensor's values on the host. PyTorch does not dispatch them for tensors of the CPU.
_READS = {torch.Tensor.cpu: "cpu", torch.Tensor.numpy: "numpy", torch.Tensor.tolist: "tolist"}
# Operators whose result's size or Python value depends on values; `item` and `bool` are the first of them.
_VALUE_DEPENDENT = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero")


class DeviceWaits:
    """Counts, by name, the operations in a block that would wait for a GPU if the tensors were there.

    >>> with DeviceWaits() as waits: model(frame)
    >>> waits.counts
    Counter({'cpu': 1})

    Only those of this thread are counted. Copies between devices by `to` are not seen: here there is one device.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._modes = (_Calls(self.counts), _Operators(self.counts))

    def __enter__(self) -> DeviceWaits:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*exception)


class _Calls(TorchFunctionMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _READS:
            self._counts[_READS[function]] += 1
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __init__(self, counts: Counter[str]) -> None:
        super().__init__()
        self._counts = counts

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operator.overloadpacket.__name__
        if name in _VALUE_DEPENDENT:
            self._counts[name] += 1
        if name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(map(_is_mask, args[1])):
            self._counts["indexing by a mask"] += 1
        return operator(*args, **(kwargs or {}))


def _is_mask(index: Any) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
