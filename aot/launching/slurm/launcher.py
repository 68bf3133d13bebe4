"""Arrays of SLURM tasks, submitted by submitit; each task is a supervisor over its shard of the clips.

What is done is what lies in the run folder, never what a pickle or a state says: after a node failure SLURM runs the
original pickle again, perhaps beside a twin that is still alive.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

from annotated_types import Ge, Gt
from submitit import JobEnvironment, SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from aot.errors import ConfigError
from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan, RunContext
from aot.launching.shards import pack
from aot.launching.slots import make_slots, python_path
from aot.launching.slurm.monitor import SlurmWait
from aot.launching.slurm.squeue import max_array_tasks
from aot.launching.slurm.submissions import Submission
from aot.launching.supervisor import Supervisor, WorkerLimits
from aot.runs.task import ClipTask, Work

# submitit ends a task for good after so many time limits. How often a clip may be lost with its task is the ladder's
# business, and every clip that is finished is progress.
_MAX_TIME_LIMITS = 10_000


@dataclass
class Task:
    """What submitit pickles: one shard of the clips, run under a supervisor wherever the task is started."""

    run: RunContext
    todo: tuple[ClipTask, ...]
    workers: int | None
    limits: WorkerLimits
    _supervisor: Supervisor | None = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Run what is missing by now."""
        task = JobEnvironment().job_id
        clips = [(each.clip, each.content) for each in self.todo]
        todo = [each for each in self.run.sort_out(clips, task=task) if each.work in (Work.ALL, Work.OVERLAY)]
        limits = WorkerLimits(self.limits.stall_seconds, self.limits.memory_gb, task)
        with Display(len(todo)) as display:
            self._supervisor = Supervisor(self.run, make_slots(self.workers), limits, display)
            self._supervisor.run(todo)

    def checkpoint(self) -> DelayedSubmission:
        """A time limit or a preemption is near: put away what is in hand; the task goes on with what is missing."""
        if self._supervisor is not None:
            self._supervisor.give_up("its task reached its time limit or was preempted", is_counted=True)
        return DelayedSubmission(Task(self.run, self.todo, self.workers, self.limits))


class SlurmLauncher:
    """Submits the clips as arrays of tasks, and waits for what comes of them."""

    divides_work = True

    def __init__(
        self,
        clips_per_task: Annotated[int, Ge(1)] = 16,
        partition: str | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        gpus_per_node: Annotated[int, Ge(0)] = 1,
        cpus_per_task: Annotated[int, Ge(1)] = 4,
        mem_gb: Annotated[float, Gt(0)] | None = None,
        timeout_min: Annotated[int, Ge(1)] = 240,
        signal_delay_s: Annotated[int, Ge(1)] = 90,
        array_parallelism: Annotated[int, Ge(1)] = 256,
        setup: tuple[str, ...] = (),
        additional_parameters: dict[str, str | int | float | bool] | None = None,
        wait: bool = True,
        poll_seconds: Annotated[float, Gt(0)] = 30.0,
        workers: Annotated[int, Ge(1)] | None = None,
        memory_gb: Annotated[float, Gt(0)] | None = None,
        stall_seconds: Annotated[float, Gt(0)] = 600.0,
    ) -> None:
        """Keep the options; they are explained in conf/launcher/slurm.yaml."""
        self._clips_per_task = clips_per_task
        self._array_parallelism = array_parallelism
        self._gpus_per_node = gpus_per_node
        self._mem_gb = mem_gb
        self._wait = wait
        self._poll_seconds = poll_seconds
        self._workers = workers
        self._care = WorkerLimits(stall_seconds, memory_gb)
        given: dict[str, Any] = {
            "partition": partition,
            "account": account,
            "qos": qos,
            "constraint": constraint,
            "gpus_per_node": gpus_per_node or None,
            "cpus_per_task": cpus_per_task,
            "mem": None if mem_gb is None else f"{round(mem_gb * 1024)}M",
            "time": timeout_min,
            "array_parallelism": array_parallelism,
        }
        self._parameters = {key: value for key, value in given.items() if value is not None} | {
            "setup": [f"export PYTHONPATH={shlex.quote(python_path())}", *setup],
            "stderr_to_stdout": True,
            # With srun, SLURM says FAILED of a task that went beyond its memory; without, it says OUT_OF_MEMORY.
            "use_srun": False,
            "wckey": None,  # submitit's own would be refused where keys are checked
            "additional_parameters": {
                # To the script alone, which has become our process; without B: nobody is told where there is no srun.
                "signal": f"B:USR2@{signal_delay_s}",
                "requeue": True,
                **(additional_parameters or {}),
            },
        }

    def launch(self, plan: Plan, todo: Sequence[ClipTask]) -> Wait | None:
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "launcher=slurm: there is no sbatch on this machine; run it on a cluster's login node, "
                "use launcher=local, or try launch/devcluster/up.sh"
            )
        waiting = SlurmWait(plan, self._submit, self._poll_seconds)
        waiting.begin(todo)
        if self._wait:
            return waiting
        print(f"submitted; nobody waits (launcher.wait=false)\n{how_to_look(plan.paths.root)}")
        return None

    def preview(self, plan: Plan, todo: Sequence[ClipTask]) -> Preview:
        shards = self._shards(plan, todo)
        executor = self._executor(plan, plan.paths.submissions.absolute() / "TIME")
        workers = self._workers or self._gpus_per_node or 1
        room = self._care.memory_gb or (self._mem_gb and self._mem_gb / workers)
        if len(shards) > 1:
            executor.parameters["map_count"] = len(shards)
        script = executor._make_submission_file_text(executor._submitit_command_str, "ID")
        at_once = min(len(shards), self._array_parallelism) * workers
        return Preview(shards, max(1, at_once), None if room is None else int(room * 1e9), script, workers)

    def _submit(self, plan: Plan, todo: Sequence[ClipTask]) -> Submission:
        """Submit clips, in as many arrays as it takes.

        Raises:
            ConfigError: SLURM refused the first of them; nothing of this call was started.
        """
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
        # submitit takes old results in a folder for new ones where job ids begin anew.
        folder = (plan.paths.submissions / f"{stamp}-{uuid4().hex[:6]}").absolute()
        by_id = {each.clip.clip_id: each for each in todo}
        shards = self._shards(plan, todo)
        size = max_array_tasks()
        tasks: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(shards), size):
            array = shards[start : start + size]
            executor = self._executor(plan, folder)
            try:
                with executor.batch():
                    jobs = [
                        executor.submit(
                            Task(plan.context, tuple(by_id[clip_id] for clip_id in shard), self._workers, self._care)
                        )
                        for shard in array
                    ]
            except FailedJobError as exc:
                if not tasks:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise ConfigError(f"SLURM refused the tasks: {str(exc).strip().splitlines()[-1]}") from exc
                print(f"SLURM took {len(tasks)} of {len(shards)} tasks and refused more: {exc}", file=sys.stderr)
                break
            tasks |= {job.job_id: tuple(shard) for job, shard in zip(jobs, array)}
            Submission(folder, tasks).save()  # at once: what is not written down is not found again
        return Submission(folder, tasks)

    def _shards(self, plan: Plan, todo: Sequence[ClipTask]) -> list[list[str]]:
        costs = {each.clip.clip_id: plan.costs[each.clip.clip_id] for each in todo}
        return pack(costs, -(-len(costs) // self._clips_per_task), self._clips_per_task) if costs else []

    def _executor(self, plan: Plan, folder: Path) -> SlurmExecutor:
        # exec: the batch script becomes our process, and SLURM's signals reach it.
        executor = _Executor(folder, _MAX_TIME_LIMITS, python=f"exec {shlex.quote(sys.executable)}")
        executor.update_parameters(job_name=f"aot-{plan.config.dataset.name}", **self._parameters)
        return executor


class _Executor(SlurmExecutor):
    """Writes its script on machines without SLURM too."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def how_to_look(root: Path) -> str:
    """The commands that follow a run whose tasks go on by themselves."""
    quoted = shlex.quote(str(root))
    return f"python -m aot.status {quoted}    # add --watch to follow it\npython -m aot.cancel {quoted}"
