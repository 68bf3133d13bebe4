"""Paths of the files of a run. No other module of aot builds an output path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

CLIP_FILE_SUFFIXES = (".h5", ".mp4", ".json", ".js")
"""Suffixes that a run folder appends to a clip's id."""


@dataclass(frozen=True)
class ClipPaths:
    """Output files of one clip.

    Args:
        root: the run folder.
        clip_id: the clip's path below the root of its dataset, without the suffix; the folders of the run mirror it.
    """

    root: Path
    clip_id: str

    @property
    def result(self) -> Path:
        """The clip's HDF5 file; exists only when it is complete."""
        return self.root / "clips" / f"{self.clip_id}.h5"

    @property
    def overlay(self) -> Path:
        return self.root / "overlays" / f"{self.clip_id}.mp4"

    @property
    def failure(self) -> Path:
        return self.root / "failures" / f"{self.clip_id}.json"

    @property
    def pictures(self) -> Path:
        """The folder of the clip's PNG files; for clips in a dataset folder of the same name, subfolders of it."""
        return self.root / "pictures" / self.clip_id

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders in which the clip's files are written."""
        report = self.report
        files = (self.result, self.overlay, self.failure, report.data, report.video, report.prompt_image(0))
        return tuple(dict.fromkeys([*(file.parent for file in files), self.pictures]))

    @property
    def report(self) -> ClipReportPaths:
        """The clip's files in the report."""
        return ClipReportPaths(self.root / "report", self.clip_id)


@dataclass(frozen=True)
class ClipReportPaths:
    """Files of one clip in the report.

    Args:
        root: the folder of the report.
        clip_id: as in `ClipPaths`.
    """

    root: Path
    clip_id: str

    @property
    def data(self) -> Path:
        """The data that its page shows; a script, because a page opened from disk cannot load other files."""
        return self.root / "data" / "clips" / f"{self.clip_id}.js"

    @property
    def video(self) -> Path:
        return self.root / "videos" / f"{self.clip_id}.mp4"

    def prompt_image(self, frame: int) -> Path:
        """The image of a prompt frame."""
        return self.root / "pictures" / self.clip_id / f"frame_{frame:06d}.jpg"

    @property
    def flow_image(self) -> Path:
        """The colours of the flow on one frame."""
        return self.root / "pictures" / self.clip_id / "flow.png"


@dataclass(frozen=True)
class RunPaths:
    """Output files of one run.

    Args:
        root: the run folder.
    """

    root: Path

    def clip(self, clip_id: str) -> ClipPaths:
        return ClipPaths(self.root, clip_id)

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def results(self) -> Path:
        """The folder of the clips' HDF5 files."""
        return self.root / "clips"

    @property
    def overlays(self) -> Path:
        """The folder of the clips' overlays."""
        return self.root / "overlays"

    def quarantine(self, clip_id: str) -> Path:
        """The place to which a damaged result is moved, for inspection."""
        return self.root / "quarantine" / f"{clip_id}.h5"

    @property
    def summary(self) -> Path:
        return self.root / "summary.csv"

    @property
    def report(self) -> Path:
        """The folder of the report; the page to open is index.html."""
        return self.root / "report"

    @property
    def clip_reports(self) -> Path:
        """The folder of the clips' parts of the report."""
        return self.report / "data" / "clips"

    @property
    def index(self) -> Path:
        """The index of the clips that `aot.open_run` reads."""
        return self.root / "index.npz"

    def export(self, name: str) -> Path:
        """The folder of the results exported to another format."""
        return self.root / "export" / name

    @property
    def scores_csv(self) -> Path:
        """Scores against ground truth: one row for the dataset, one per clip and one per object."""
        return self.root / "scores.csv"

    @property
    def scores_json(self) -> Path:
        return self.root / "scores.json"

    @property
    def failures(self) -> Path:
        return self.root / "failures"

    @property
    def ledgers(self) -> Path:
        return self.root / "ledger"

    @property
    def ended_ledgers(self) -> Path:
        """The ledgers of workers that will not write any more, see `aot.runs.ledger_files`."""
        return self.ledgers / "ended"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def submissions(self) -> Path:
        """Submissions to a scheduler: one file per array of tasks, and the scheduler's own files beside it."""
        return self.root / "logs" / "slurm"

    @property
    def submit_lock(self) -> Path:
        """Exists while a command submits tasks to a scheduler."""
        return self.root / "logs" / "submitting.lock"

    def claim(self, clip_id: str) -> Path:
        """Exists while a worker computes the clip; named by a hash, because clip ids may contain folders."""
        return self.ledgers / "claims" / hashlib.sha256(clip_id.encode()).hexdigest()[:32]

    @property
    def finished(self) -> Path:
        """What a command has recorded when it wrote the table of a finished run, see `aot.runs.finished`."""
        return self.logs / "finished.json"

    def ledger(self, worker: str) -> Path:
        return self.ledgers / f"{worker}.jsonl"

    def log(self, worker: str) -> Path:
        return self.logs / f"{worker}.log"


@dataclass(frozen=True)
class SweepPaths:
    """Output files of a sweep, beside its run folders.

    Args:
        root: the sweep folder.
    """

    root: Path

    @property
    def page(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def data(self) -> Path:
        """The data that the page shows, as a script."""
        return self.root / "report" / "data" / "sweep.js"

    @property
    def table(self) -> Path:
        return self.root / "report" / "sweep.csv"
