"""Memory limits, each in its own process because a limit cannot be raised again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import aot
from aot.system.memory import available_host_bytes, num_oom_kills


def output_of(code: str) -> list[str]:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(Path(aot.__file__).parents[1])},
    )  # fmt: skip
    return process.stdout.split()


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
