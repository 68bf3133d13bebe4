"""Submissions to SLURM, recorded in the run folder, so that later commands can find the tasks and their clips."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aot.paths import RunPaths
from aot.system.files import write_text

_RECORD = "tasks.json"


@dataclass(frozen=True)
class Submission:
    """One or more arrays of tasks that were submitted together."""

    folder: Path
    """For the files of SLURM and submitit, such as logs; every submission has a different one."""
    tasks: Mapping[str, tuple[str, ...]]
    """Task → ids of its clips; a task is named `<array job>_<index>`, or `<job>` if it is not in an array."""

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
        write_text(self.folder / _RECORD, json.dumps({task: list(clip_ids) for task, clip_ids in self.tasks.items()}))


def read_submissions(paths: RunPaths) -> list[Submission]:
    """All submissions of a run, oldest first."""
    found = []
    for record in sorted(paths.submissions.glob(f"*/{_RECORD}")):
        tasks = json.loads(record.read_text(encoding="utf-8"))
        found.append(Submission(record.parent, {task: tuple(clip_ids) for task, clip_ids in tasks.items()}))
    return found
