"""How much memory can still be had, by every limit that stands over this process."""

from __future__ import annotations

import os
import resource
from pathlib import Path


def available_bytes(part: object) -> int:
    """Memory that a part can still get on the device it runs on; see `aot.system.devices` for how it says which."""
    return available_device_bytes(str(getattr(part, "device_name", "cpu")))


def available_device_bytes(device: str) -> int:
    """Memory that this process can still get on a device, named as torch or a result names it."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info()
        # What torch has reserved and does not use is free for us too.
        return int(free + torch.cuda.memory_reserved() - torch.cuda.memory_allocated())
    return available_host_bytes()


def available_host_bytes() -> int:
    """Main memory that this process can still get: of the machine, of its control groups, below its own cap."""
    available = _status_bytes(Path("/proc/meminfo"), "MemAvailable")
    rooms = [] if available is None else [available]
    cap, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if cap != resource.RLIM_INFINITY:
        rooms.append(max(0, cap - (_status_bytes(Path("/proc/self/status"), "VmData") or 0)))
    return min([*rooms, *_control_group_rooms()], default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def cap_memory(gigabytes: float) -> None:
    """Let this process have no more than so much memory of its own; what asks for more gets an error.

    The limit is RLIMIT_DATA, not RLIMIT_AS: CUDA reserves address space by the hundred gigabytes and uses little of it.
    """
    cap = int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))


def num_oom_kills() -> int:
    """How many processes the kernel has ended on this machine for want of memory, those above a limit included."""
    count = _field(Path("/proc/vmstat"), "oom_kill")
    return int(count) if count is not None else 0


def _control_group_rooms() -> list[int]:
    """What is left below the memory limit of each control group that this process is in."""
    rooms = []
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, controllers, name = line.split(":", 2)
        is_version_2 = number == "0" and not controllers
        if not is_version_2 and "memory" not in controllers.split(","):
            continue
        root = Path("/sys/fs/cgroup") if is_version_2 else Path("/sys/fs/cgroup/memory")
        names = ("memory.max", "memory.current") if is_version_2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        folder = root / name.lstrip("/")
        for group in (folder, *folder.parents):
            limit, usage = (_text(group / name).strip() for name in names)
            if limit.isdecimal() and usage.isdecimal():
                # Cached files count as used, and are given back on demand.
                stat = group / "memory.stat"
                evictable = _field(stat, "total_inactive_file") or _field(stat, "inactive_file") or 0
                rooms.append(max(0, int(limit) - int(usage) + int(evictable)))
            if group == root:
                break
    return rooms


def _status_bytes(path: Path, name: str) -> int | None:
    kilobytes = _field(path, f"{name}:")
    return None if kilobytes is None else 1024 * int(kilobytes)


def _field(path: Path, name: str) -> str | None:
    """The number after a name, in a file with one of each on a line."""
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
