"""launch/sbatch_array.sh: which Python runs the shards, without SLURM; tests/faults submits the script."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launch" / "sbatch_array.sh"
HAS_AOT = '#!/bin/sh\n[ "$1" = -c ] && exit 0\necho "$0 $*"\n'
LACKS_AOT = "#!/bin/sh\nexit 1\n"


class Node:
    """A machine with some Pythons, on which a task of an array runs.

    Args:
        folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.work = folder / "project" / "work"
        self.work.mkdir(parents=True)
        self.bin.mkdir()
        for name in ("bash", "dirname", "hostname"):
            (self.bin / name).symlink_to(f"/usr/bin/{name}")
        for name in ("python", "python3"):
            self.add(self.bin / name, LACKS_AOT)

    def add(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, **variables: str) -> subprocess.CompletedProcess[str]:
        array = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "16", "SLURM_SUBMIT_DIR": str(self.work)}
        environment = {"PATH": str(self.bin), **array, **variables}
        command = ["bash", str(SCRIPT), "dataset=videos", "dataset.root=/my clips"]
        return subprocess.run(
            command, env=environment, cwd=os.sep, capture_output=True, text=True, check=False, timeout=60
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.mark.parametrize(
    "place", ["bin/python", "bin/python3", "project/work/.venv/bin/python", "project/.venv/bin/python"]
)
def test_python_with_aot_is_found(node: Node, place: str) -> None:
    python = node.add(node.bin.parent / place, HAS_AOT)
    ended = node.run()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"{python} -m aot.run launcher=local shard=3/16 dataset=videos dataset.root=/my clips\n"


def test_given_python_is_used(node: Node, tmp_path: Path) -> None:
    node.add(node.bin / "python", HAS_AOT)
    given = node.add(tmp_path / "other", HAS_AOT)
    assert node.run(PYTHON=str(given)).stdout.startswith(f"{given} -m aot.run ")


def test_given_python_without_aot_is_not_replaced_by_another_one(node: Node, tmp_path: Path) -> None:
    node.add(node.bin / "python", HAS_AOT)
    given = node.add(tmp_path / "other", LACKS_AOT)
    ended = node.run(PYTHON=str(given))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"sbatch_array.sh: {given} cannot import aot on ")


def test_message_names_what_to_do_where_no_python_has_aot(node: Node) -> None:
    ended = node.run()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "no Python that was found (python, python3, .venv/bin/python) cannot import aot on " in ended.stderr
    assert ended.stderr.endswith("submit with: PYTHON=/path/to/.venv/bin/python sbatch sbatch_array.sh ...\n")


def test_script_that_is_not_submitted_is_refused(node: Node) -> None:
    node.add(node.bin / "python", HAS_AOT)
    ended = node.run(SLURM_ARRAY_TASK_ID="")
    assert ended.returncode == 2
    assert ended.stderr.startswith("sbatch_array.sh: this is not a task of an array; submit it: sbatch ")
