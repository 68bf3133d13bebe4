"""Submissions to SLURM, recorded in the run folder, so that later commands can find the tasks and their clips."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aot.paths import RunPaths
from aot.runs.folders import runs_below
from aot.system.files import write_text

_RECORD = "tasks.json"
_ARRAYS = "arrays.json"


@dataclass(frozen=True)
class Submission:
    """One or more arrays of tasks that were submitted together."""

    folder: Path
    """For the files of SLURM and submitit, such as logs; every submission has a different one."""
    tasks: Mapping[str, tuple[str, ...]]
    """Task → ids of its clips; a task is named `<array job>_<index>`, or `<job>` if it is not in an array."""
    after: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Array job → the jobs that end before it starts, so that not too many tasks run at the same time."""

    @property
    def jobs(self) -> list[str]:
        """Job ids, one per array."""
        return sorted({task.partition("_")[0] for task in self.tasks}, key=int)

    def log(self, task: str) -> Path:
        """The file with the output of a task."""
        return self.folder / f"{task}_0_log.out"

    def save(self) -> None:
        """Write the record to the submission's folder.

        Raises:
            WriteError: the run folder cannot be written.
        """
        if any(self.after.values()):
            write_text(self.folder / _ARRAYS, json.dumps(self.after))
        write_text(self.folder / _RECORD, json.dumps({task: list(clip_ids) for task, clip_ids in self.tasks.items()}))


@dataclass(frozen=True)
class LivingArray:
    """A job of which some tasks wait or run."""

    job: str
    num_tasks: int
    """How many tasks wait or run."""
    after: tuple[str, ...]
    """The jobs that end before it starts."""


def read_submissions(paths: RunPaths) -> list[Submission]:
    """All submissions of a run, oldest first."""
    found = []
    for record in sorted(paths.submissions.glob(f"*/{_RECORD}")):
        tasks = json.loads(record.read_text(encoding="utf-8"))
        arrays = record.with_name(_ARRAYS)
        after = json.loads(arrays.read_text(encoding="utf-8")) if arrays.exists() else {}
        found.append(
            Submission(
                record.parent,
                {task: tuple(clip_ids) for task, clip_ids in tasks.items()},
                {job: tuple(jobs) for job, jobs in after.items()},
            )
        )
    return found


def read_related_submissions(paths: RunPaths) -> list[Submission]:
    """The submissions of the other runs of the same sweep; empty if the run is not part of a sweep."""
    if not paths.root.absolute().parent.name.startswith("sweep-"):
        return []
    own = paths.root.absolute()
    others = [folder for folder in runs_below(own.parent) if folder.absolute() != own]
    return [submission for folder in others for submission in read_submissions(RunPaths(folder))]


class Waves:
    """Arrays that may run at the same time, at most `parallelism` tasks; each wave starts when the last one has ended.

        parallelism 4:    wave 1: array a (3 tasks)             array b (2 tasks) does not fit into it
                          wave 2: array b, array c (2 tasks)    start when a has ended

    SLURM limits only the tasks of a single array.

    Args:
        living: the arrays that wait or run, in the order of their submission.
        parallelism: maximum number of tasks that run at the same time.
    """

    def __init__(self, living: Iterable[LivingArray], parallelism: int) -> None:
        self._arrays = sorted(living, key=lambda array: int(array.job))
        self._parallelism = parallelism

    def place(self, num_tasks: int) -> tuple[str, ...]:
        """The jobs that must end before an array of so many tasks starts."""
        if not self._arrays:
            return ()
        last = self._arrays[-1]
        living = {array.job for array in self._arrays}
        wave = [array for array in self._arrays if array.after == last.after]
        if sum(map(self._at_once, (*(array.num_tasks for array in wave), num_tasks))) <= self._parallelism:
            return tuple(job for job in last.after if job in living)
        return tuple(array.job for array in wave)

    def add(self, job: str, num_tasks: int, after: tuple[str, ...]) -> None:
        """Add an array that was submitted."""
        self._arrays.append(LivingArray(job, num_tasks, after))

    def _at_once(self, num_tasks: int) -> int:
        return min(num_tasks, self._parallelism)
