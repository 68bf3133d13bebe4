"""The development cluster as a test fixture, with the faults a cluster has: preemption, cancelled tasks, lost nodes."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import wait_until

CONFIG = Path("/etc/slurm/slurm.conf")
LOCK = Path("/var/tmp/aot-devcluster-tests.lock")
# Every question to SLURM starts a process.
POLL_SECONDS = 0.2
# These tests kill daemons and cancel every job: never run them on a cluster that this repository did not set up.
OURS = ("# written by launch/devcluster/up.sh", "# written by slurm-up.sh")


@contextmanager
def require_devcluster() -> Iterator[Devcluster]:
    """The development cluster, locked for one test at a time on this machine; skips the test if it is not running."""
    if not (CONFIG.exists() and CONFIG.read_text().startswith(OURS)):
        pytest.skip("no development cluster: `make system` (as root on Debian) starts one")
    if shutil.which("scontrol") is None or "UP" not in _run("scontrol", "ping", check=False):
        pytest.skip("the development cluster is down: `make system` (as root on Debian) starts it")
    # In a folder that everybody can write: no link of another user is followed.
    with os.fdopen(os.open(LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Devcluster()
        cluster.restore_nodes()
        cluster.cancel_everything()
        try:
            yield cluster
        finally:
            cluster.restore_nodes()  # a task on a lost node ends only when its node is back
            cluster.cancel_everything()


class Devcluster:
    """A SLURM cluster of four nodes, all on this machine."""

    def states(self) -> dict[str, str]:
        """State of every task in the queue; all belong to the current test."""
        lines = _run("squeue", "--noheader", "--array", "--format=%F_%K %T").splitlines()
        return dict(line.replace("_N/A", "").split() for line in lines)

    def tasks(self, state: str) -> list[str]:
        return [task for task, current in self.states().items() if current == state]

    def cancel(self, *tasks: str) -> None:
        _run("scancel", *tasks)

    def cancel_everything(self) -> None:
        jobs = {task.partition("_")[0] for task in self.states()}
        if jobs:
            self.cancel(*jobs)
            wait_until(lambda: not self.states(), interval_seconds=POLL_SECONDS)

    def preempt_all(self) -> str:
        """Preempt all running tasks by a job of higher priority on all nodes. Returns the job's id."""
        job = _run(
            "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--job-name=important",
            "--output=/dev/null", "--wrap=sleep 600",
        ).strip()  # fmt: skip
        wait_until(lambda: self.states().get(job) == "RUNNING", interval_seconds=POLL_SECONDS)
        return job

    def kill_node(self, node: str, *pids: int) -> None:
        """Make SLURM lose a node: kill its daemon, and these processes with it."""
        daemon = self._daemon(node)
        for pid in (daemon, *pids):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "down" in self.state_of(node), interval_seconds=POLL_SECONDS)

    def restore_nodes(self) -> None:
        """Restart the daemons of lost nodes."""
        for node in ("n1", "n2", "n3", "n4"):
            if not Path(f"/proc/{self._daemon(node)}").exists():
                _run("slurmd", "-N", node)
        wait_until(self._all_nodes_work, interval_seconds=POLL_SECONDS)

    def _all_nodes_work(self) -> bool:
        states = _run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%T").split()
        return all(state.startswith(("idle", "mixed", "alloc")) for state in states)

    def state_of(self, node: str) -> str:
        return _run("sinfo", "--noheader", f"--nodes={node}", "--partition=debug", "--format=%T").strip()

    def _daemon(self, node: str) -> int:
        line = next(line for line in CONFIG.read_text().splitlines() if line.startswith("SlurmdPidFile="))
        return int(Path(line.partition("=")[2].replace("%n", node)).read_text())


def _run(*command: str, check: bool = True) -> str:
    # Where the link leads: daemons read further files beside it.
    environment = os.environ | {"SLURM_CONF": str(CONFIG.resolve())}
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60, env=environment).stdout
