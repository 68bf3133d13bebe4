"""Memory limits, each in its own process because a limit cannot be raised again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import aot
from aot.system.memory import available_device_bytes, available_host_bytes, num_oom_kills


def output_of(code: str) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(Path(aot.__file__).parents[1])},
    )  # fmt: skip
    return process.stdout.split()


def test_freed_blocks_of_the_heap_are_returned_to_the_system() -> None:
    held, kept, released = output_of(
        "from aot.system.devices import release_memory\n"
        "from aot.system.memory import peak_memory_bytes, reset_peak_memory\n"
        "def resident():\n"
        "    reset_peak_memory()\n"
        "    return peak_memory_bytes()\n"
        "blocks = [b'1' * 100_000 for _ in range(2000)]\n"
        "held = resident()\n"
        "last = blocks[-1]\n"
        "del blocks\n"
        "kept = resident()\n"
        "release_memory()\n"
        "print(held, kept, resident())\n"
    )
    assert int(held) - int(kept) < 0.5e8, "the C library returns freed blocks by itself; the test shows nothing"
    assert int(kept) - int(released) > 1.5e8


def test_available_memory_is_the_rest_below_the_limit() -> None:
    before, after, error = output_of(
        "import numpy as np\n"
        "from aot.system.memory import cap_memory, available_host_bytes\n"
        "cap_memory(1.0)\n"
        "before = available_host_bytes()\n"
        "held = np.ones(2 * 10**8, dtype=np.uint8)\n"
        "print(before, available_host_bytes())\n"
        "try:\n"
        "    np.ones(10**9, dtype=np.uint8)\n"
        "except MemoryError as error:\n"
        "    print(type(error).__mro__[1].__name__)\n"
    )
    assert 0.5e9 < int(before) < 1e9
    assert abs(int(before) - int(after) - 2e8) < 2e7
    assert error == "MemoryError"


def test_without_a_limit_the_machines_memory_is_available() -> None:
    total = 1024 * int(Path("/proc/meminfo").read_text().split()[1])
    assert 0 < available_host_bytes() <= total
    assert num_oom_kills() >= 0


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.events": "oom 3\noom_kill 2\n", "job/memory.events": "oom_kill 9\n"}, 2),
        ("4:memory:/job\n0::/\n", {"memory/job/memory.oom_control": "under_oom 0\noom_kill 5\n"}, 5),
        ("4:memory:/job\n0::/job\n", {"job/memory.events": "oom_kill 1\n"}, 1),
        ("0::/\n", {}, 70),
        ("4:memory:/\n0::/\n", {"memory/memory.oom_control": "under_oom 0\n"}, 70),
        ("", {}, 70),
    ],
    ids=["version 2", "version 1", "both", "root group", "old kernel", "none"],
)
def test_kills_in_the_own_control_group_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str], expected: int
) -> None:
    """Elsewhere on the machine, 70 processes were killed, such as those of other users' jobs."""
    for name, text in {**files, "vmstat": "pgfault 1\noom_kill 70\n", "groups": groups}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("aot.system.memory._HIERARCHIES", tmp_path)
    monkeypatch.setattr("aot.system.memory._CONTROL_GROUPS", tmp_path / "groups")
    monkeypatch.setattr("aot.system.memory._VMSTAT", tmp_path / "vmstat")
    assert num_oom_kills() == expected


@pytest.mark.parametrize("version", [1, 2])
def test_available_memory_is_below_the_limits_of_all_outer_control_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    limit, usage = [("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current")][version - 1]
    root = tmp_path / "memory" if version == 1 else tmp_path
    for folder, bytes_allowed in ((root / "job", 5000), (root / "job" / "step", 10**15)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit).write_text(f"{bytes_allowed}\n")
        (folder / usage).write_text("3000\n")
        (folder / "memory.stat").write_text("inactive_file 500\n")
    (tmp_path / "groups").write_text("4:memory:/job/step\n" if version == 1 else "0::/job/step\n")
    monkeypatch.setattr("aot.system.memory._HIERARCHIES", tmp_path)
    monkeypatch.setattr("aot.system.memory._CONTROL_GROUPS", tmp_path / "groups")
    assert available_host_bytes() == 2500


class Card:
    """A GPU of 80 GB in place of torch.cuda, and what the processes on it have allocated, in GB.

    Args:
        num_processes: that use it; each has a context of 0.5 GB.
    """

    def __init__(self, num_processes: int) -> None:
        self.tensors = [0.0] * num_processes
        self.cached = [0.0] * num_processes
        self.current = 0

    def mem_get_info(self) -> tuple[int, int]:
        used = sum(self.tensors) + sum(self.cached) + 0.5 * len(self.tensors)
        return int((80 - used) * 1e9), int(80e9)

    def memory_allocated(self) -> int:
        return int(self.tensors[self.current] * 1e9)

    def memory_reserved(self) -> int:
        return int((self.tensors[self.current] + self.cached[self.current]) * 1e9)

    def available(self, process: int) -> float:
        self.current = process
        return available_device_bytes("cuda:0 stand-in") / 1e9


def card(monkeypatch: pytest.MonkeyPatch, num_processes: int) -> Card:
    made = Card(num_processes)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=made))
    monkeypatch.setenv("AOT_PROCESSES_PER_GPU", str(num_processes))
    return made


def test_a_process_has_all_the_free_memory_of_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    one = card(monkeypatch, 1)
    assert one.available(0) == 79.5
    one.tensors[0], one.cached[0] = 30.0, 10.0
    assert one.available(0) == 49.5, "what torch has cached is available too"
    monkeypatch.delenv("AOT_PROCESSES_PER_GPU")
    assert one.available(0) == 49.5, "a process that no supervisor has started"


@pytest.mark.parametrize("num_processes", [2, 3, 4])
def test_processes_that_start_together_do_not_count_on_the_same_memory(
    monkeypatch: pytest.MonkeyPatch, num_processes: int
) -> None:
    shared = card(monkeypatch, num_processes)
    available = [shared.available(process) for process in range(num_processes)]
    assert sum(available) + 0.5 * num_processes <= 80
    assert min(available) > 80 / num_processes - 1, "and most of it is used"
    shared.tensors = available  # each takes all that it was promised
    assert shared.mem_get_info()[0] >= 0
    assert [round(shared.available(process), 6) for process in range(num_processes)] == [0.0] * num_processes


def test_the_part_of_each_process_is_known_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction is made by a process that computes nothing."""
    one = card(monkeypatch, 1)
    one.tensors, one.cached = [], [0.0]
    monkeypatch.setattr(Card, "memory_allocated", lambda self: 0)
    monkeypatch.setattr(Card, "memory_reserved", lambda self: 0)
    assert available_device_bytes("cuda:0 stand-in", 2) == 80 * 10**9 // 2 - 600_000_000


def test_memory_that_others_have_taken_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = card(monkeypatch, 2)
    shared.tensors[1], shared.cached[1] = 60.0, 10.0
    assert shared.available(0) == 9.0
    assert shared.available(1) == 0.0
