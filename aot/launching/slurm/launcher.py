"""The launcher for SLURM: arrays of tasks, submitted with submitit; each task supervises its shard of the clips.

Only the run folder records which clips are done, never submitit's pickle or SLURM's state: after a node failure SLURM
runs the original pickle again, possibly while a duplicate of the task is still alive.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Annotated, Any
from uuid import uuid4

from annotated_types import Ge, Gt
from submitit import JobEnvironment, SlurmExecutor
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission

from aot.config import Names
from aot.errors import ConfigError
from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan, RunContext
from aot.launching.shards import pack
from aot.launching.slots import drawers_per_worker, make_slots, python_path
from aot.launching.slurm.monitor import SlurmWait
from aot.launching.slurm.squeue import max_array_tasks
from aot.launching.slurm.submissions import LivingArray, Submission, Waves
from aot.launching.supervised_child import WorkerLimits
from aot.launching.supervisor import Supervisor
from aot.runs.state import merge_ended_ledgers
from aot.runs.task import ClipTask
from aot.system.group_access import allow_group
from aot.system.text import counted

# submitit stops requeueing a task after this many time limits. The limit is ours to set per clip (aot.retry), and every
# finished clip is progress.
_MAX_TIME_LIMITS = 10_000
# Python and its packages are thousands of files.
_STARTS_PER_SECOND = 10
_MAX_START_DELAY_SECONDS = 30
# Options of sbatch that only a key of the launcher sets.
_OWN_OPTIONS = {
    "time": "timeout_min", "signal": "signal_delay_s", "requeue": "requeue", "no-requeue": "requeue",
    "array": "array_parallelism",
}  # fmt: skip


@dataclass
class Task:
    """One shard of the clips, run under a supervisor on a node; submitit pickles it.

    Args:
        run: what is the same for all clips.
        clip_tasks: the clips of the shard.
        workers: number of worker processes; None: one per GPU, or one if there is no GPU.
        limits: of every worker process.
        limit_seconds: a task that SLURM signals after this time has reached its time limit; before, it is preempted.
        drawers: number of processes per worker that draw its finished clips; None: from the number of cores.
        is_requeued: whether SLURM may run the task again; otherwise, the waiting command submits its clips again.
    """

    run: RunContext
    clip_tasks: tuple[ClipTask, ...]
    workers: int | None
    limits: WorkerLimits
    limit_seconds: float
    drawers: int | None = None
    is_requeued: bool = True
    _supervisor: Supervisor | None = field(default=None, init=False, repr=False)
    _planning_seconds: float = field(default=0.0, init=False, repr=False)

    def __call__(self) -> None:
        """Process the clips that are not done yet."""
        # SLURM sends it to a task that is cancelled, preempted or requeued, and kills the task a few seconds later.
        signal.signal(signal.SIGTERM, self._terminate)
        begun = time.monotonic()
        if self.run.config.output.group is not None:
            allow_group(self.run.config.output.group, self.run.paths.root)
        slurm_task = JobEnvironment().job_id
        is_restarted = os.environ.get("SLURM_RESTART_COUNT", "0") != "0"
        tasks = self.run.tasks_since(self.clip_tasks, slurm_task, is_restarted=is_restarted)
        pending = [task for task in tasks if task.is_pending]
        limits = WorkerLimits(self.limits.stall_seconds, self.limits.memory_gb, slurm_task)
        self._planning_seconds = time.monotonic() - begun
        with Display(len(pending)) as display:
            self._supervisor = Supervisor(self.run, make_slots(self.workers, self.drawers), limits, display)
            self._supervisor.run(pending)
        merge_ended_ledgers(self.run.paths)

    def checkpoint(self) -> DelayedSubmission | None:
        """Abandon the current clips before a time limit or a preemption; the requeued task continues with the rest.

        Returns:
            None if the task is not requeued, and ends.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # requeueing sends it
        self._abandon("its task was preempted")
        if not self.is_requeued:
            return None
        return DelayedSubmission(
            Task(self.run, self.clip_tasks, self.workers, self.limits, self.limit_seconds, self.drawers)
        )

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        """Abandon the current clips before the task is killed."""
        for other in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(other, signal.SIG_IGN)
        self._abandon("its task was cancelled, preempted or requeued")
        raise SystemExit(128 + number)

    def _abandon(self, otherwise: str) -> None:
        """Abandon the current clips.

        Args:
            otherwise: the reason if it is not the time limit.
        """
        if self._supervisor is not None:
            seconds = self._planning_seconds + self._supervisor.attended_seconds
            is_time_limit = seconds >= self.limit_seconds
            reason = "its task reached its time limit" if is_time_limit else otherwise
            self._supervisor.abandon(reason, is_time_limit=is_time_limit, by_scheduler=True)


class SlurmLauncher:
    """Submits the clips as arrays of SLURM tasks and waits until every clip is done or has failed.

    Args:
        clips_per_task: maximum number of clips per task.
        partition: partitions of which SLURM chooses the one that starts a task first; None: the cluster's default.
        account, qos, constraint, exclude, comment: as for sbatch; None: the cluster's default.
        gpus_per_node: GPUs per task; 0: none is requested.
        gres: generic resources, as for sbatch; with GPUs among them, gpus_per_node must be 0.
        cpus_per_task: cores per task.
        mem_gb: main memory per task, in GiB (1024 MiB, as SLURM counts); None: the cluster's default.
        mem_per_gpu, mem_per_cpu: main memory per GPU or per core in its place, with a unit, such as 32G.
        timeout_min: time limit of a task, in minutes; a task that reaches it is requeued.
        signal_delay_s: how long before the time limit a task is signalled, in s.
        requeue: whether SLURM may requeue a task that is preempted, loses its node, or reaches its time limit.
        array_parallelism: maximum number of tasks that run at the same time, of a run or of all runs of a sweep.
        setup: shell lines to run before the workers start.
        additional_parameters: other options of sbatch, name → value.
        wait: whether to wait; otherwise the command returns after submitting.
        poll_seconds: interval between calls of squeue, in s.
        workers: worker processes per task; None: one per GPU, or one if there is no GPU.
        memory_gb: main memory that one worker may use, in units of 10⁹ bytes; None: no limit.
        stall_seconds: a worker that makes no progress and uses no CPU for this long, in s, is replaced.
        drawers: processes per worker that draw and score its finished clips; None: from the number of cores.
        strict: whether clips that were computed with a larger frame_interval than requested make the exit code 1.
    """

    divides_work = True

    def __init__(
        self,
        clips_per_task: Annotated[int, Ge(1)] = 16,
        partition: Names | None = None,
        account: str | None = None,
        qos: str | None = None,
        constraint: str | None = None,
        exclude: str | None = None,
        comment: str | None = None,
        gpus_per_node: Annotated[int, Ge(0)] = 1,
        gres: str | None = None,
        cpus_per_task: Annotated[int, Ge(1)] = 4,
        mem_gb: Annotated[float, Gt(0)] | None = None,
        mem_per_gpu: str | None = None,
        mem_per_cpu: str | None = None,
        timeout_min: Annotated[int, Ge(1)] = 240,
        signal_delay_s: Annotated[int, Ge(1)] = 90,
        requeue: bool = True,
        array_parallelism: Annotated[int, Ge(1)] = 256,
        setup: tuple[str, ...] = (),
        additional_parameters: dict[str, str | int | float | bool] | None = None,
        wait: bool = True,
        poll_seconds: Annotated[float, Gt(0)] = 30.0,
        workers: Annotated[int, Ge(1)] | None = None,
        memory_gb: Annotated[float, Gt(0)] | None = None,
        stall_seconds: Annotated[float, Gt(0)] = 600.0,
        drawers: Annotated[int, Ge(1)] | None = None,
        strict: bool = False,
    ) -> None:
        self.is_strict = strict
        _refuse_options_given_twice(additional_parameters or {})
        num_gpus = gpus_per_node or _num_gpus(gres)
        if gpus_per_node and _num_gpus(gres):
            raise ConfigError(
                f"launcher.gres={gres} and launcher.gpus_per_node={gpus_per_node} both request GPUs; add "
                f"launcher.gpus_per_node=0"
            )
        memories = {"mem_gb": mem_gb, "mem_per_gpu": mem_per_gpu, "mem_per_cpu": mem_per_cpu}
        if len(given := [name for name, value in memories.items() if value is not None]) > 1:
            raise ConfigError(
                f"{', '.join(f'launcher.{name}={memories[name]}' for name in given)}: expected one of them, because "
                f"each requests the main memory of a task; leave out the others"
            )
        self._clips_per_task = clips_per_task
        self._array_parallelism = array_parallelism
        self._num_gpus = num_gpus
        self._cpus_per_task = cpus_per_task
        self._memory_gib = mem_gb
        if mem_per_gpu is not None:
            self._memory_gib = _gib("mem_per_gpu", mem_per_gpu) * max(1, num_gpus)
        if mem_per_cpu is not None:
            self._memory_gib = _gib("mem_per_cpu", mem_per_cpu) * cpus_per_task
        self._is_requeued = requeue
        self._wait = wait
        self._poll_seconds = poll_seconds
        self._workers = workers
        self._drawers = drawers
        self._limits = WorkerLimits(stall_seconds, memory_gb)
        # SLURM may send the signal up to a minute earlier than requested.
        self._limit_seconds = 60.0 * timeout_min - signal_delay_s - 90.0 - _MAX_START_DELAY_SECONDS
        options: dict[str, Any] = {
            "partition": ",".join(partition or ()) or None,
            "account": account,
            "qos": qos,
            "constraint": constraint,
            "exclude": exclude,
            "comment": comment,
            "gpus_per_node": gpus_per_node or None,
            "gres": gres,
            "cpus_per_task": cpus_per_task,
            "mem": None if mem_gb is None else f"{round(mem_gb * 1024)}M",
            "mem_per_gpu": mem_per_gpu,
            "mem_per_cpu": mem_per_cpu,
            "time": timeout_min,
            "array_parallelism": array_parallelism,
        }
        self._parameters = {key: value for key, value in options.items() if value is not None} | {
            "setup": [f"export PYTHONPATH={shlex.quote(python_path())}", *setup],
            "stderr_to_stdout": True,
            # A task that exceeds its memory ends as FAILED with srun, as OUT_OF_MEMORY without.
            "use_srun": False,
            "wckey": None,  # clusters that check keys would refuse submitit's default
            "additional_parameters": {
                # B: signal the batch script, which exec has replaced by our process; without B and srun, none is sent.
                "signal": f"B:USR2@{signal_delay_s}",
                "requeue" if requeue else "no-requeue": True,
                **(additional_parameters or {}),
            },
        }

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Wait | None:
        if shutil.which("sbatch") is None:
            raise ConfigError(
                "launcher=slurm: there is no sbatch on this machine; run the command on a login node of the cluster, "
                "use launcher=local, or start a test cluster with launch/devcluster/up.sh"
            )
        waiting = SlurmWait(plan, self._submit, self._poll_seconds)
        waiting.begin(tasks)
        if self._wait:
            return waiting
        print(f"not waiting for the tasks (launcher.wait=false)\n{follow_up_commands(plan.paths.root)}")
        return None

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        shards = self._shards(plan, tasks)
        executor = self._executor(plan, plan.paths.submissions.absolute() / "TIME", len(shards))
        workers = self._workers or self._num_gpus or 1
        memory_gb = self._limits.memory_gb or (self._memory_gib and self._memory_gib / workers)
        if len(shards) > 1:
            executor.parameters["map_count"] = len(shards)
        script = executor._make_submission_file_text(executor._submitit_command_str, "ID")
        max_workers = max(1, min(len(shards), self._array_parallelism) * workers)
        available_bytes = None if memory_gb is None else int(memory_gb * 1e9)
        drawers = workers * (self._drawers or drawers_per_worker(self._cpus_per_task, workers))
        return Preview(shards, max_workers, available_bytes, script, workers, drawers)

    def _submit(
        self, plan: Plan, tasks: Sequence[ClipTask], living: Sequence[LivingArray], show_life: Callable[[], None]
    ) -> Submission:
        """Submit clips, in as many arrays as needed.

        Args:
            plan, tasks: the clips and their run.
            living: arrays of the run, or of its sweep, that wait or run.
            show_life: called after every array.
        Raises:
            ConfigError: SLURM refused the first array; this call started nothing.
        """
        stamp = datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")
        # A new folder per submission: submitit would mistake old results for new ones where job ids start over.
        folder = (plan.paths.submissions / f"{stamp}-{uuid4().hex[:6]}").absolute()
        by_id = {task.clip.clip_id: task for task in tasks}
        shards = self._shards(plan, tasks)
        size = max_array_tasks()
        waves = Waves(living, self._array_parallelism)
        submitted: dict[str, tuple[str, ...]] = {}
        after: dict[str, tuple[str, ...]] = {}
        for start in range(0, len(shards), size):
            array = shards[start : start + size]
            jobs_before = waves.place(len(array))
            executor = self._executor(plan, folder, len(array), jobs_before)
            try:
                with executor.batch():
                    jobs = [
                        executor.submit(
                            Task(
                                plan.context,
                                tuple(by_id[clip_id] for clip_id in shard),
                                self._workers,
                                self._limits,
                                self._limit_seconds,
                                self._drawers,
                                self._is_requeued,
                            )
                        )
                        for shard in array
                    ]
            except FailedJobError as exc:
                if not submitted:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise ConfigError(f"SLURM refused the tasks: {_message_of(exc)}") from exc
                print(
                    f"SLURM accepted {len(submitted)} of {counted(len(shards), 'task')} and refused the rest: "
                    f"{_message_of(exc)}",
                    file=sys.stderr,
                )
                break
            submitted |= {job.job_id: tuple(shard) for job, shard in zip(jobs, array)}
            array_job = jobs[0].job_id.partition("_")[0]
            after[array_job] = jobs_before
            waves.add(array_job, len(array), jobs_before)
            Submission(folder, submitted, after).save()  # after every array: later commands find only recorded tasks
            show_life()
        return Submission(folder, submitted, after)

    def _shards(self, plan: Plan, tasks: Sequence[ClipTask]) -> list[list[str]]:
        costs = {task.clip.clip_id: plan.costs[task.clip.clip_id] for task in tasks}
        return pack(costs, -(-len(costs) // self._clips_per_task), self._clips_per_task) if costs else []

    def _executor(self, plan: Plan, folder: Path, num_tasks: int, jobs_before: Sequence[str] = ()) -> SlurmExecutor:
        """The executor of an array.

        Args:
            plan: of the run.
            folder: of the submission.
            num_tasks: in the array.
            jobs_before: that end before the array starts.
        """
        # exec: the batch script becomes our process, and SLURM's signals reach it.
        executor = _Executor(folder, _MAX_TIME_LIMITS, python=f"exec {shlex.quote(sys.executable)}")
        parameters = copy.deepcopy(self._parameters)
        parameters["setup"] = [*_start_delay(min(num_tasks, self._array_parallelism)), *parameters["setup"]]
        others = parameters["additional_parameters"]
        if jobs_before:
            # Not "afterok": tasks that have failed must not stop the others.
            own = f"afterany:{':'.join(jobs_before)}"
            others["dependency"] = ",".join(filter(None, [others.get("dependency"), own]))
        executor.update_parameters(job_name=f"aot-{plan.config.dataset.name}", **parameters)
        return executor


class _Executor(SlurmExecutor):
    """Writes the batch script also on machines without SLURM."""

    @classmethod
    def affinity(cls) -> int:
        return 1


def _start_delay(num_tasks: int) -> list[str]:
    """Shell lines that let tasks begin at different times: together, they would overload the file server.

    Args:
        num_tasks: how many may start at the same time.
    """
    seconds = min(num_tasks // _STARTS_PER_SECOND, _MAX_START_DELAY_SECONDS)
    return [f"sleep $((RANDOM % {seconds})).$((RANDOM % 10))  # not all tasks at once"] if seconds else []


def _refuse_options_given_twice(additional_parameters: Mapping[str, Any]) -> None:
    """Raise if other options of sbatch include one that decides what the launcher does, or one that is false."""
    for name, value in additional_parameters.items():
        if (option := _OWN_OPTIONS.get(name)) is not None:
            raise ConfigError(
                f"launcher.additional_parameters: {name} is set by launcher.{option}, which also decides how a task "
                f"that is stopped is treated; use launcher.{option}"
            )
        if value is False:
            raise ConfigError(
                f"launcher.additional_parameters: {name}=false: options of sbatch cannot be false; leave it out, or "
                f"use the option that means the opposite"
            )


def _num_gpus(gres: str | None) -> int:
    """How many GPUs generic resources include: gpu, gpu:2, gpu:a100:2 or gres/gpu=2, in a list with commas."""
    num_gpus = 0
    for resource in (gres or "").split(","):
        words = re.split("[:=]", resource.strip().removeprefix("gres/").partition("(")[0])
        if words[0] == "gpu":
            num_gpus += int(words[-1]) if words[-1].isdecimal() else 1
    return num_gpus


def _gib(option: str, amount: str) -> float:
    """An amount of memory with a unit, in GiB.

    Raises:
        ConfigError: it has no unit; sbatch would take the number for MiB.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT])B?", amount, re.IGNORECASE)
    if found is None:
        raise ConfigError(f"launcher.{option}={amount}: expected a number with a unit, such as 32G or 512M")
    return float(found[1]) * 1024.0 ** ("KMGT".index(found[2].upper()) - 2)


def _message_of(refused: FailedJobError) -> str:
    """The complete message of sbatch, without its repeated name."""
    lines = [line.strip().removeprefix("sbatch: ").removeprefix("error: ") for line in str(refused).splitlines()]
    return "; ".join(line for line in lines if line) or "sbatch failed without a message"


def follow_up_commands(root: Path) -> str:
    """The commands that show and cancel a run whose tasks continue on their own."""
    quoted = shlex.quote(str(root))
    return f"python -m aot.status {quoted}    # add --watch to follow it\npython -m aot.cancel {quoted}"
