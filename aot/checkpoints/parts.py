"""What a part that runs a model declares, as results record it: its weights, its device, and its precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from aot.checkpoints.weights import Weights
from aot.system.memory import available_device_bytes


@runtime_checkable
class UsesWeights(Protocol):
    """A part with model weights."""

    @property
    def weights(self) -> tuple[Weights, ...]:
        """One entry per file, from `aot.checkpoints.identify(path)`."""
        ...


@runtime_checkable
class UsesDevice(Protocol):
    """A part that does not run on the CPU, or that lets the user choose its device."""

    @property
    def device_name(self) -> str:
        """From `aot.system.devices.describe_device(device)`: "cpu", "mps" or "cuda:0 NVIDIA H100 80GB HBM3"."""
        ...


@runtime_checkable
class UsesPrecision(Protocol):
    """A part that lets the user choose the precision of its model."""

    @property
    def precision_name(self) -> str:
        """The precision in use on this machine: "fp32", "bf16" or "fp16"."""
        ...


def weights_of(part: object) -> tuple[Weights, ...]:
    """The weights that a part declares; none for a part that is not a `UsesWeights`."""
    return part.weights if isinstance(part, UsesWeights) else ()


def device_name_of(part: object) -> str:
    """The device that a part declares; the CPU for a part that is not a `UsesDevice`."""
    return part.device_name if isinstance(part, UsesDevice) else "cpu"


def precisions_of(parts: Mapping[str, object]) -> dict[str, str]:
    """The precision of each part that declares one, by role."""
    return {role: part.precision_name for role, part in parts.items() if isinstance(part, UsesPrecision)}


def available_bytes(part: object, processes_per_gpu: int | None = None) -> int:
    """Memory that this process can still allocate on the device that a part declares.

    Args:
        part: of a pipeline.
        processes_per_gpu: see `available_device_bytes`.
    """
    return available_device_bytes(device_name_of(part), processes_per_gpu)
