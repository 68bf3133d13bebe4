"""Slots for worker processes on one machine: one per GPU, or one if there is no GPU, and the slots of their drawers."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from aot.system.memory import PROCESSES_PER_GPU

# By default, per worker: a drawer takes 0.4 GB of memory.
_MAX_DRAWERS = 4


@dataclass(frozen=True)
class Slot:
    """The resources of one child process at a time."""

    number: int
    """From 0."""
    gpu: str | None
    """The GPU as CUDA_VISIBLE_DEVICES names it, empty to hide all GPUs; None: no GPU."""
    num_threads: int | None
    """Threads that the child's libraries may use for one operation; None: their own default."""
    processes_per_gpu: int = 1
    """How many slots share the GPU; each may use the same part of its memory."""
    is_drawer: bool = False
    """Whether the process only draws finished clips; it has no GPU."""

    @property
    def name(self) -> str:
        """Unique among the slots of a supervisor."""
        return f"draw{self.number}" if self.is_drawer else str(self.number)

    def environment(self) -> dict[str, str]:
        """Environment variables of a child process in this slot."""
        variables = dict(os.environ)
        variables["PYTHONPATH"] = python_path()
        variables["PYTHONUNBUFFERED"] = "1"
        # Torch reads it once, at start. Without it, blocks of varying sizes fragment the memory.
        allocator = variables.get("PYTORCH_CUDA_ALLOC_CONF", "")
        if "expandable_segments" not in allocator:
            variables["PYTORCH_CUDA_ALLOC_CONF"] = ",".join(filter(None, [allocator, "expandable_segments:True"]))
        if self.gpu is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.gpu
        variables[PROCESSES_PER_GPU] = str(self.processes_per_gpu)
        if self.num_threads is not None:
            for name in ("OMP_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
                variables.setdefault(name, str(self.num_threads))
        return variables


def make_slots(workers: int | None, drawers: int | None) -> list[Slot]:
    """Slots for workers, and for the drawers of all of them.

    Args:
        workers: number of workers; None: one per GPU, or one if there is no GPU.
        drawers: number of drawers per worker; None: half of the cores of a worker, at least one and at most
            _MAX_DRAWERS.
    """
    gpus = visible_gpus()
    count = workers or len(gpus) or 1
    # The cores that SLURM has granted; not every cluster confines a task to them.
    granted = os.environ.get("SLURM_CPUS_PER_TASK")
    cores = int(granted) if granted else len(os.sched_getaffinity(0))
    num_threads = max(1, cores // count) if count > 1 or granted else None
    gpu_of = [gpus[number % len(gpus)] if gpus else None for number in range(count)]
    models = [Slot(number, gpu, num_threads, gpu_of.count(gpu) if gpu else 1) for number, gpu in enumerate(gpu_of)]
    per_worker = drawers or drawers_per_worker(cores, count)
    # Drawers process clips side by side, so that more threads in each of them gain nothing.
    return models + [Slot(number, "", 1, is_drawer=True) for number in range(per_worker * count)]


def drawers_per_worker(cores: int, workers: int) -> int:
    """How many drawers each worker has by default.

    Args:
        cores: of all workers.
        workers: number of workers.
    """
    return min(_MAX_DRAWERS, max(1, cores // workers // 2))


def python_path() -> str:
    """PYTHONPATH of a process that can import what this process can, in any working directory."""
    library = Path(sysconfig.get_path("stdlib"))
    archive = library.parent / f"python{sys.version_info.major}{sys.version_info.minor}.zip"
    # The interpreter adds these itself.
    own = {str(library), str(library / "lib-dynload"), str(archive), *site.getsitepackages()}
    added = (path or str(Path.cwd()) for path in sys.path if path not in own)
    return os.pathsep.join(dict.fromkeys(added))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; CUDA is not initialised."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1", "NoDevFiles")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True)  # noqa: S607
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
