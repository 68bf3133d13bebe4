"""`make gpu`: rehearsed on the CPU, because no test runs it on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import Options, Row, main, print_table

ROOT = Path(__file__).parents[1]
PARTS = ("machine", "tests", "parity", "run", "trackers", "official_tracker", "segmenters", "official_segmenter")


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(device="cpu", is_small=True, is_full=False, sizes=("tiny",), upstream=None, folder=tmp_path)


def rehearse(*parts: str) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, str, str], str]]:
    """Frames per second by what was measured, its size and precision, and results by what was compared with what."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", "--parts", *parts]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith("|") and line.endswith("|") for line in lines)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    speeds = {tuple(row[:3]): float(row[3]) for row in rows if row[3]}
    assert min(speeds.values()) > 0
    return speeds, {(row[0], row[2], row[5]): row[6] for row in rows}


@pytest.mark.slow
def test_rehearsal_of_our_trackers() -> None:
    speeds, _ = rehearse("machine", "trackers")
    assert set(speeds) >= {("CoTracker3 offline", "8 points", "fp32"), ("CoTracker3 online", "8 points", "bf16")}


@pytest.mark.long
def test_rehearsal_prints_one_table() -> None:
    """All parts but `compiled`, which differs from `segmenters` by an option that test_sam2_compiled tests.

    Quick: test_rehearsal_of_our_trackers, and the comparisons with the official packages in tests/segmentation and
    tests/tracking.
    """
    speeds, results = rehearse(*PARTS)
    assert set(speeds) >= {
        ("run: SAM 2 tiny, CoTracker3", "2 clips", "auto, fp32"),
        ("CoTracker3 offline", "8 points", "fp32"),
        ("CoTracker3 online", "8 points", "bf16"),
        ("official CoTracker3 offline", "8 + 36", "fp32"),
        ("SAM 2 tiny", "1 object", "fp32"),
        ("SAM 2 tiny", "4 objects", "fp32"),
        ("official SAM 2 tiny", "4 objects", "bf16"),
    }
    assert results["CoTracker3 offline", "fp32", "CPU, fp32"] == "at most 0.00000 px, mean 0.00000 px"
    apart = re.match(r"at most (\S+) px", results["CoTracker3 offline", "fp32", "official CoTracker3"])
    assert apart is not None
    assert float(apart[1]) < 0.001
    assert results["SAM 2 tiny", "fp32", "official SAM 2"] == "logits at most 0, 0.0000% of the pixels"
    assert "device busy" in results["run: SAM 2 tiny, CoTracker3", "auto, fp32", ""]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert "no CUDA device" in printed.err


def test_a_failed_part_does_not_stop_the_others(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    def failing(options: Options) -> Iterator[Row]:
        yield Row("first row", frames_per_second=1.25)
        raise RuntimeError("out of memory")

    def differing(options: Options) -> Iterator[Row]:
        yield Row("parity", problem="differs by 2 px")

    problems = print_table({"failing": failing, "differing": differing}, options, 60)
    assert problems == ["failing: failed: out of memory", "parity: differs by 2 px"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["first row", "parity"]
    assert [cell.strip() for cell in lines[2].split("|")[4:6]] == ["1.2", ""]


def test_parts_for_which_no_time_is_left_are_named(options: Options) -> None:
    def endless(options: Options) -> Iterator[Row]:
        while True:
            yield Row("again")

    def never(options: Options) -> Iterator[Row]:
        raise AssertionError("begun after the time limit")
        yield

    problems = print_table({"endless": endless, "never": never}, options, 0.05)
    assert [problem.partition(":")[0] for problem in problems] == ["endless", "never"]
    assert "within" in problems[1]
