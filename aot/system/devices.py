"""Where models run: the choice of a device, and what a result records of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from aot.errors import ConfigError, OutOfMemory

if TYPE_CHECKING:
    import torch

DeviceOption = Literal["auto", "cpu", "cuda", "mps"]
"""auto takes CUDA, then MPS, then the CPU."""

# The CPU's allocator and Metal's have no exception of their own.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "MPS backend out of memory")


def choose_device(chosen: DeviceOption, *, option: str) -> torch.device:
    """The device that an option means on this machine.

    Args:
        chosen: the option's value.
        option: its configuration key.
    Raises:
        ConfigError: this machine has none of that kind.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind, is_there in available.items() if is_there]
    if chosen == "auto":
        return torch.device(there[0])
    if chosen not in there:
        raise ConfigError(
            f"{option}={chosen}: this machine has none that torch can use; there are: {', '.join(there)}; "
            f"{option}=auto takes the first of them"
        )
    return torch.device(chosen)


def describe_device(device: torch.device) -> str:
    """As results name it: "cpu", "mps" or "cuda:0 NVIDIA H100 80GB HBM3"."""
    import torch

    if device.type != "cuda":
        return device.type
    number = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{number} {torch.cuda.get_device_name(number)}"


def devices_of(parts: Mapping[str, object]) -> str:
    """One line on where some parts, given by their role, run: "cpu", or "segmenter cuda:0 NVIDIA H100, tracker cpu".

    A part that runs elsewhere than on the CPU says so in its attribute `device_name`.
    """
    names = {role: str(getattr(part, "device_name", "cpu")) for role, part in parts.items()}
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{role} {name}" for role, name in names.items())


@contextmanager
def torch_memory_errors(model: str, advice: str) -> Iterator[None]:
    """Map what torch raises where memory ends.

    Args:
        model: what ran out of memory, as a message names it.
        advice: what to do next.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as exc:
        raise OutOfMemory(f"out of device memory in {model}: {exc}; {advice}") from exc
    except RuntimeError as exc:
        if not any(text in str(exc) for text in _OUT_OF_MEMORY):
            raise
        raise OutOfMemory(f"out of memory in {model}: {exc}; {advice}") from exc
