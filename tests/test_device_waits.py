"""The finder of waits for a GPU: what it finds, and that it finds nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.device_waits import DeviceWaits

WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "tolist": lambda x: x.tolist(),
    "_local_scalar_dense": lambda x: x[0, 0].item(),
    "nonzero": lambda x: torch.nonzero(x),
    "equal": lambda x: torch.equal(x, x),
    "masked_select": lambda x: torch.masked_select(x, x > 0),
    "indexing by a mask": lambda x: x[x > 0],
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_are_counted(name: str) -> None:
    with DeviceWaits() as waits:
        WAITS[name](torch.ones(2, 3))
        WAITS[name](torch.ones(2, 3))
    assert waits.counts[name] == 2


@pytest.mark.parametrize("wait", [lambda x: bool(x.sum()), lambda x: int(x.sum()), lambda x: 1 if x.sum() > 0 else 0])
def test_values_used_by_python_are_counted(wait: Callable[[torch.Tensor], object]) -> None:
    with DeviceWaits() as waits:
        wait(torch.ones(2, 3))
    assert sum(waits.counts.values()) == 1


def test_writing_by_a_mask_is_counted() -> None:
    x = torch.ones(2, 3)
    with DeviceWaits() as waits:
        x[x > 0] = torch.arange(6.0)
    assert waits.counts == {"indexing by a mask": 1}


def test_computing_is_not_counted() -> None:
    with torch.inference_mode(), DeviceWaits() as waits:
        x = torch.rand(4, 3) @ torch.rand(3, 4)
        x = x[torch.arange(2), torch.tensor([1, 0])].sort().values
        torch.where(x > 0, x, 0).to(torch.bfloat16)
    x.tolist()
    assert not waits.counts
