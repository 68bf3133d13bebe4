"""The calls of SLURM's commands, answered by a function instead of SLURM."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from aot.errors import ConfigError
from aot.launching.slurm import squeue


class Answers:
    """Stands in for `subprocess.run`: the answer of the next call, and the commands that were called."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.output, self.error, self.code = "", "", 0
        self.raises: Exception | None = None

    def __call__(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert options["timeout"] == 60
        self.commands.append(command)
        if self.raises is not None:
            raise self.raises
        return subprocess.CompletedProcess(command, self.code, self.output, self.error)


@pytest.fixture
def slurm(monkeypatch: pytest.MonkeyPatch) -> Answers:
    answers = Answers()
    monkeypatch.setattr(squeue.subprocess, "run", answers)
    return answers


def test_states_of_arrays_and_single_jobs_by_one_call(slurm: Answers) -> None:
    slurm.output = "7 0 RUNNING\n7 1 PENDING\n7 2 FAILED\n12 N/A COMPLETED\n"
    assert squeue.task_states(["12", "7_0", "7_1", "7_3"]) == {
        "12": "COMPLETED", "7_0": "RUNNING", "7_1": "PENDING", "7_3": "GONE",
    }  # fmt: skip
    (command,) = slurm.commands
    assert command[0] == "squeue"
    assert command[-1] == "--jobs=7,12"
    assert {"--array", "--states=all", "--noheader", "--format=%F %K %T"} <= set(command)


def test_no_task_needs_no_call(slurm: Answers) -> None:
    assert squeue.task_states([]) == {}
    assert squeue.last_states([]) == {}
    assert slurm.commands == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("slurm_load_jobs error: Invalid job id specified", {"7_0": "GONE"}),
        ("slurm_load_jobs error: Unable to contact slurm controller", None),
    ],
)
def test_errors_of_squeue(slurm: Answers, error: str, expected: dict[str, str] | None) -> None:
    slurm.code, slurm.error = 1, error
    assert squeue.task_states(["7_0"]) == expected


@pytest.mark.parametrize("error", [FileNotFoundError("squeue"), subprocess.TimeoutExpired("squeue", 60)])
def test_missing_or_hanging_commands_do_not_answer(slurm: Answers, error: Exception) -> None:
    slurm.raises = error
    assert squeue.task_states(["7_0"]) is None
    assert squeue.last_states(["7_0"]) == {}


def test_final_states_are_those_of_accounting(slurm: Answers) -> None:
    slurm.output = "7_0|CANCELLED by 1000\n7_1|TIMEOUT\n7_2|FAILED\n"
    assert squeue.last_states(iter(["7_0", "7_1", "7_9"])) == {"7_0": "CANCELLED", "7_1": "TIMEOUT"}
    (command,) = slurm.commands
    assert (command[0], command[-1]) == ("sacct", "--jobs=7")
    slurm.code, slurm.error = 1, "Slurm accounting storage is disabled"
    assert squeue.last_states(["7_0"]) == {}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"])
def test_living_states_are_not_final(state: str) -> None:
    assert state not in squeue.ENDED


@pytest.mark.parametrize(
    ("output", "code", "expected"),
    [
        ("MaxArraySize            = 501\nMaxJobCount = 10000\n", 0, 501),
        ("MaxJobCount = 10000\n", 0, 1001),
        ("MaxArraySize = 501", 1, 1001),
    ],
)
def test_maximum_size_of_an_array(slurm: Answers, output: str, code: int, expected: int) -> None:
    slurm.output, slurm.code = output, code
    assert squeue.max_array_tasks() == expected


def test_jobs_are_cancelled_together(slurm: Answers) -> None:
    squeue.cancel_jobs(["7", "12"])
    assert slurm.commands == [["scancel", "7", "12"]]
    slurm.code, slurm.error = 1, "scancel: error: Invalid job id 7"
    squeue.cancel_jobs(["7"])  # it has ended
    slurm.error = "scancel: error: Access/permission denied\n"
    with pytest.raises(ConfigError, match=r"^scancel 7 12: scancel: error: Access/permission denied$"):
        squeue.cancel_jobs(["7", "12"])
    slurm.error = ""
    with pytest.raises(ConfigError, match="scancel 7: failed"):
        squeue.cancel_jobs(["7"])


def test_commands_that_query_slurm_do_not_import_submitit() -> None:
    module: Any = __import__("aot.launching.slurm", fromlist=["SlurmLauncher"])
    make: Callable[..., Any] = module.SlurmLauncher
    assert make.__module__ == "aot.launching.slurm.launcher"
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        _ = module.Nonsense
