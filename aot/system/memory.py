"""How much memory this process can still allocate, under all limits that apply to it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

PROCESSES_PER_GPU = "AOT_PROCESSES_PER_GPU"
"""Environment variable of a process that shares its GPU: the number of processes that compute on it."""

# What CUDA itself needs in every process that uses a GPU, beside the tensors: about half a gigabyte.
_CUDA_CONTEXT_BYTES = 600_000_000
_HIERARCHIES = Path("/sys/fs/cgroup")
_CONTROL_GROUPS = Path("/proc/self/cgroup")
_VMSTAT = Path("/proc/vmstat")


def available_device_bytes(device: str, processes_per_gpu: int | None = None) -> int:
    """Memory that this process can still allocate on a device, given by its name in torch or in results.

    Processes that share a GPU each get the same part of its memory. The memory that is free at the moment is no
    measure: processes that start together would all count on the whole of it, and run out of memory in the middle of
    their clips.

    Args:
        device: its name.
        processes_per_gpu: how many processes compute on the GPU; None: as the environment says (PROCESSES_PER_GPU).
    """
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info()
        allocated = torch.cuda.memory_allocated()
        # Memory that torch has reserved and does not use is available to us too.
        available = free + torch.cuda.memory_reserved() - allocated
        if processes_per_gpu is None:
            processes_per_gpu = int(os.environ.get(PROCESSES_PER_GPU, "1"))
        if processes_per_gpu > 1:
            available = min(available, total // processes_per_gpu - _CUDA_CONTEXT_BYTES - allocated)
        return max(0, int(available))
    return available_host_bytes()


def reset_device_peak() -> None:
    """Forget the peaks that `device_peak_bytes` has reported so far."""
    for cuda, number in _used_gpus():
        cuda.reset_peak_memory_stats(number)


def device_peak_bytes() -> int | None:
    """Peak memory of the tensors of this process since `reset_device_peak`; of several GPUs, the largest.

    The allocator counts them on the host, so that nothing waits for a GPU.

    Returns:
        None if the process has not used a GPU.
    """
    return max((cuda.max_memory_allocated(number) for cuda, number in _used_gpus()), default=None)


def _used_gpus() -> list[tuple[Any, int]]:
    """`torch.cuda` and the number of each GPU, if this process uses any; torch is not imported here."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return []
    return [(torch.cuda, number) for number in range(torch.cuda.device_count())]


def available_host_bytes() -> int:
    """Host memory that this process can still allocate, limited by the machine, its control groups and `cap_memory`."""
    available = _status_bytes(Path("/proc/meminfo"), "MemAvailable")
    limits = [] if available is None else [available]
    cap, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if cap != resource.RLIM_INFINITY:
        limits.append(max(0, cap - (_status_bytes(Path("/proc/self/status"), "VmData") or 0)))
    return min([*limits, *_control_group_limits()], default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def cap_memory(gigabytes: float) -> None:
    """Limit the memory of this process; allocations beyond the limit raise MemoryError.

    The limit is RLIMIT_DATA, not RLIMIT_AS: CUDA reserves hundreds of gigabytes of address space and uses little of it.

    Args:
        gigabytes: the limit, in units of 10⁹ bytes.
    """
    cap = int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))


def reset_peak_memory() -> None:
    """Forget the peak of `peak_memory_bytes`; without the permission, it remains that of the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes() -> int:
    """Peak resident memory of this process since the last reset."""
    peak = _status_bytes(Path("/proc/self/status"), "VmHWM")
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if peak is None else peak


def num_oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory in the control group of this process.

    Whether the limit of a group or the memory of the machine was exceeded: kills are counted where the killed process
    was. Kills in other groups, such as those of other users' jobs, do not count. Without a control group for memory,
    those of the machine count.
    """
    for group in _control_groups():
        for name in ("memory.events", "memory.oom_control"):  # of version 2 and 1
            if (count := _field(group / name, "oom_kill")) is not None:
                return int(count)
    count = _field(_VMSTAT, "oom_kill")
    return int(count) if count is not None else 0


def _control_groups() -> Iterator[Path]:
    """The folders of the control groups for memory that this process is in: of each hierarchy, the innermost one."""
    for line in _text(_CONTROL_GROUPS).splitlines():
        number, controllers, name = line.split(":", 2)
        is_version_2 = number == "0" and not controllers
        if is_version_2 or "memory" in controllers.split(","):
            yield (_HIERARCHIES if is_version_2 else _HIERARCHIES / "memory") / name.lstrip("/")


def _control_group_limits() -> list[int]:
    """The bytes left below the memory limit of each control group that this process is in."""
    remaining = []
    for innermost in _control_groups():
        for group in (innermost, *innermost.parents):
            for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
                limit, usage = (_text(group / name).strip() for name in names)
                if limit.isdecimal() and usage.isdecimal():
                    # Cached file contents count as used, but are evicted on demand.
                    stat = group / "memory.stat"
                    evictable = _field(stat, "total_inactive_file") or _field(stat, "inactive_file") or 0
                    remaining.append(max(0, int(limit) - int(usage) + int(evictable)))
            if group in (_HIERARCHIES, _HIERARCHIES / "memory"):
                break
    return remaining


def _status_bytes(path: Path, name: str) -> int | None:
    kilobytes = _field(path, f"{name}:")
    return None if kilobytes is None else 1024 * int(kilobytes)


def _field(path: Path, name: str) -> str | None:
    """The value after a name, in a file with one name and value per line."""
    for line in _text(path).splitlines():
        words = line.split()
        if words and words[0] == name:
            return words[1]
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
