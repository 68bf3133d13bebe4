"""Choosing the device that a model runs on, naming it in results, and its state in this process."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from aot.errors import ConfigError, OutOfMemory

if TYPE_CHECKING:
    import torch

DeviceOption = Literal["auto", "cpu", "cuda", "mps"]
"""auto: CUDA if available, else MPS, else the CPU."""

# The CPU's and Metal's allocators raise a plain RuntimeError.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "MPS backend out of memory")


def choose_device(chosen: DeviceOption, *, option: str) -> torch.device:
    """The device that a configuration option selects on this machine.

    Args:
        chosen: the option's value.
        option: its configuration key, named in the message.
    Raises:
        ConfigError: torch finds no such device.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    usable = [kind for kind, is_available in available.items() if is_available]
    if chosen == "auto":
        return torch.device(usable[0])
    if chosen not in usable:
        raise ConfigError(
            f"{option}={chosen}: torch finds no such device on this machine; available: {', '.join(usable)}; "
            f"{option}=auto takes the first of them"
        )
    return torch.device(chosen)


def describe_device(device: torch.device) -> str:
    """The name of a device in results: "cpu", "mps" or "cuda:0 NVIDIA H100 80GB HBM3"."""
    import torch

    if device.type != "cuda":
        return device.type
    number = torch.cuda.current_device() if device.index is None else device.index
    return f"cuda:{number} {torch.cuda.get_device_name(number)}"


def describe_devices(names: Mapping[str, str]) -> str:
    """The devices of several parts on one line: "cpu", or "segmenter cuda:0 NVIDIA H100, tracker cpu".

    Args:
        names: role → name of its device.
    """
    if len(set(names.values())) == 1:
        return next(iter(names.values()))
    return ", ".join(f"{role} {name}" for role, name in names.items())


@contextmanager
def torch_memory_errors(model: str, advice: str) -> Iterator[None]:
    """Map torch's out-of-memory errors, of any device, to OutOfMemory.

    Args:
        model: the model that runs in the block, named in the message.
        advice: what the user can do, the end of the message.
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


@contextmanager
def tf32(is_allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32, which rounds every factor to 10 bits, for CUDA's products and convolutions in the block.

    PyTorch allows it for convolutions by default. `torch.backends.cudnn.flags` is not used: its arguments
    that are not given have defaults, which disable cuDNN and thereby multiply the time of convolutions.
    """
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = is_allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def release_memory() -> None:
    """Free memory that nothing uses any more, on the host and on GPUs, so that it is available to what comes next."""
    gc.collect()
    _trim_heap()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized() and broken_cuda() is None:
        torch.cuda.empty_cache()


def _trim_heap() -> None:
    """Return free memory of the heap to the system; only glibc, which otherwise keeps freed blocks, needs this."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def broken_cuda() -> str | None:
    """Why CUDA cannot be used any more in this process; None if it can, or was never used.

    After some errors (an illegal memory access, an assertion in a kernel), every later call in the context fails.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None
