"""Slots of workers: GPUs, cores, and environment variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from aot.launching.slots import Slot, make_slots, python_path, visible_gpus


def workers_of(workers: int | None) -> list[Slot]:
    return [slot for slot in make_slots(workers, drawers=1) if not slot.is_drawer]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


def test_one_worker_per_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,MIG-7")
    assert [slot.gpu for slot in workers_of(None)] == ["2", "MIG-7"]
    assert [slot.gpu for slot in workers_of(3)] == ["2", "MIG-7", "2"]
    assert workers_of(None)[1].environment()["CUDA_VISIBLE_DEVICES"] == "MIG-7"


def test_workers_of_one_gpu_know_that_they_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [slot.environment()["AOT_PROCESSES_PER_GPU"] for slot in workers_of(3)] == ["2", "1", "2"]
    assert {slot.environment()["AOT_PROCESSES_PER_GPU"] for slot in workers_of(None)} == {"1"}


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_one_worker_without_gpu(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    (slot,) = workers_of(None)
    assert (slot.gpu, slot.num_threads) == (None, None)
    assert slot.environment()["CUDA_VISIBLE_DEVICES"] == visible


def test_gpus_are_listed_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    assert visible_gpus() == ["0", "1"]


def test_workers_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    given = workers_of(2)[0].environment()
    assert (given["OMP_NUM_THREADS"], given["OPENCV_FOR_THREADS_NUM"]) == ("4", "4")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert workers_of(2)[0].environment()["OMP_NUM_THREADS"] == "1", "the value of the user is kept"


@pytest.mark.parametrize(
    ("workers", "cores", "given", "expected"),
    [(1, 1, None, 1), (1, 4, None, 2), (1, 64, None, 4), (2, 8, None, 4), (4, 4, None, 4), (2, 8, 3, 6)],
)
def test_drawers_are_at_most_half_of_the_cores_and_at_least_one_per_worker(
    monkeypatch: pytest.MonkeyPatch, workers: int, cores: int, given: int | None, expected: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", str(cores))
    drawers = [slot for slot in make_slots(workers, given) if slot.is_drawer]
    assert len(drawers) == len({slot.name for slot in drawers}) == expected
    environment = drawers[0].environment()
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("", "1")


def test_torch_allocator_uses_expandable_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    slot = workers_of(1)[0]
    assert slot.environment()["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
    assert slot.environment()["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:64,expandable_segments:True"
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False")
    assert slot.environment()["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:False"
    assert str(Path(__file__).parents[2]) in slot.environment()["PYTHONPATH"].split(os.pathsep)


def test_python_path_has_the_import_paths_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    added = ["/usr/src/app", f"{sys.prefix}-extras", f"{sys.base_prefix}/apps"]
    for path in added:
        monkeypatch.syspath_prepend(path)
    given = python_path().split(os.pathsep)
    assert set(added) <= set(given)
    assert not any(path.endswith(("site-packages", "lib-dynload")) for path in given)
