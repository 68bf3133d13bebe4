"""The devcluster, and what can happen to it: killed tasks, preemption, lost nodes."""

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

from tests.waiting import until

CONFIG = Path("/etc/slurm/slurm.conf")
LOCK = Path("/var/tmp/aot-devcluster-tests.lock")
# A cluster that others work on would not survive these tests, nor would their author.
OURS = ("# written by launch/devcluster/up.sh", "# written by slurm-up.sh")


@contextmanager
def require_devcluster() -> Iterator[Devcluster]:
    """The devcluster, for one test at a time whoever runs it; a test that needs it skips where it is not up."""
    if not (CONFIG.exists() and CONFIG.read_text().startswith(OURS)):
        pytest.skip("no SLURM to try on: `make system` (as root on Debian) starts a devcluster")
    if shutil.which("scontrol") is None or "UP" not in _say("scontrol", "ping", check=False):
        pytest.skip("the devcluster is down: `make system` (as root on Debian) starts it")
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cluster = Devcluster()
        cluster.bring_back()
        cluster.cancel_everything()
        try:
            yield cluster
        finally:
            cluster.bring_back()  # a task may not end before its node is there again
            cluster.cancel_everything()


class Devcluster:
    """Four nodes on this machine."""

    def states(self) -> dict[str, str]:
        """State of every task in the queue; those of other tests have ended."""
        lines = _say("squeue", "--noheader", "--array", "--format=%F_%K %T").splitlines()
        return dict(line.replace("_N/A", "").split() for line in lines)

    def tasks(self, state: str) -> list[str]:
        return [task for task, its in self.states().items() if its == state]

    def cancel(self, *tasks: str) -> None:
        _say("scancel", *tasks)

    def cancel_everything(self) -> None:
        jobs = {task.partition("_")[0] for task in self.states()}
        if jobs:
            self.cancel(*jobs)
            until(lambda: not self.states())

    def take_all_nodes(self) -> str:
        """Let a job of a higher priority take all nodes; what runs there is preempted. Returns the job."""
        job = _say(
            "sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--job-name=important",
            "--output=/dev/null", "--wrap=sleep 600",
        ).strip()  # fmt: skip
        until(lambda: self.states().get(job) == "RUNNING")
        return job

    def lose(self, node: str, *pids: int) -> None:
        """Let a node vanish: its daemon is killed, and these processes with it."""
        daemon = self._daemon(node)
        for pid in (daemon, *pids):
            os.kill(pid, signal.SIGKILL)
        until(lambda: "down" in self.state_of(node))

    def bring_back(self) -> None:
        """Start the daemons of lost nodes again."""
        for node in ("n1", "n2", "n3", "n4"):
            if not Path(f"/proc/{self._daemon(node)}").exists():
                _say("slurmd", "-N", node)
        until(
            lambda: all(self.state_of(node).startswith(("idle", "mixed", "alloc")) for node in ("n1", "n2", "n3", "n4"))
        )

    def state_of(self, node: str) -> str:
        return _say("sinfo", "--noheader", f"--nodes={node}", "--partition=debug", "--format=%T").strip()

    def _daemon(self, node: str) -> int:
        line = next(line for line in CONFIG.read_text().splitlines() if line.startswith("SlurmdPidFile="))
        return int(Path(line.partition("=")[2].replace("%n", node)).read_text())


def _say(*command: str, check: bool = True) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60).stdout
