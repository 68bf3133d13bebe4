"""What was handed to SLURM, kept in the run folder: whoever comes later knows the tasks and their clips."""

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
    """Some arrays of tasks, submitted together."""

    folder: Path
    """Of SLURM's and submitit's own files, logs among them; no other submission has the same."""
    tasks: Mapping[str, tuple[str, ...]]
    """The clips of every task; `<array job>_<index>`, or `<job>` of one that is no array."""

    @property
    def jobs(self) -> list[str]:
        """Job ids, one an array."""
        return sorted({task.partition("_")[0] for task in self.tasks}, key=int)

    def log(self, task: str) -> Path:
        """Where a task's own words are."""
        return self.folder / f"{task}_0_log.out"

    def save(self) -> None:
        """Keep it in its folder.

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
