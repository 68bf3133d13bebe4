"""The places for workers on one machine: one a GPU, or one where there is none."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Slot:
    """Room for one child process at a time."""

    number: int
    """From 0."""
    gpu: str | None
    """As CUDA_VISIBLE_DEVICES names it; None where there is none."""
    num_threads: int | None
    """Threads its libraries may use for one operation; None: as many as they like."""

    def environment(self) -> dict[str, str]:
        """Environment of a child process in this slot."""
        given = dict(os.environ)
        given["PYTHONPATH"] = python_path()
        given["PYTHONUNBUFFERED"] = "1"
        # Read by torch once, when it starts: without it, blocks of ever new sizes leave gaps that fit nothing.
        allocator = given.get("PYTORCH_CUDA_ALLOC_CONF", "")
        if "expandable_segments" not in allocator:
            given["PYTORCH_CUDA_ALLOC_CONF"] = ",".join(filter(None, [allocator, "expandable_segments:True"]))
        if self.gpu is not None:
            given["CUDA_VISIBLE_DEVICES"] = self.gpu
        if self.num_threads is not None:
            for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
                given.setdefault(name, str(self.num_threads))
        return given


def make_slots(workers: int | None) -> list[Slot]:
    """Slots for so many workers; None: one a GPU, one on a machine without."""
    gpus = visible_gpus()
    count = workers or len(gpus) or 1
    # What SLURM has granted; not every cluster confines a task to it.
    granted = os.environ.get("SLURM_CPUS_PER_TASK")
    cores = int(granted) if granted else len(os.sched_getaffinity(0))
    num_threads = max(1, cores // count) if count > 1 or granted else None
    return [Slot(number, gpus[number % len(gpus)] if gpus else None, num_threads) for number in range(count)]


def python_path() -> str:
    """PYTHONPATH of a process that can import what this one can, wherever it is started."""
    library = Path(sysconfig.get_path("stdlib"))
    archive = library.parent / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    # The interpreter finds these by itself.
    own = {str(library), str(library / "lib-dynload"), str(archive), *site.getsitepackages()}
    added = (path or str(Path.cwd()) for path in sys.path if path not in own)
    return os.pathsep.join(dict.fromkeys(added))


def visible_gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them; nothing is initialized."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [gpu.strip() for gpu in given.split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
