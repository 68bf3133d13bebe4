"""Where a run's files lie. Nothing else in aot puts an output path together."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aot.errors import WriteError

PART_SUFFIX = ".part"
CLIP_FILE_SUFFIXES = (".h5", ".mp4", ".json", ".js")
"""What the files of a clip are called after its id."""


@dataclass(frozen=True)
class ClipPaths:
    """Output files of one clip."""

    root: Path
    clip_id: str

    @property
    def result(self) -> Path:
        """The clip's HDF5 file; there only when it is whole."""
        return self.root / "clips" / f"{self.clip_id}.h5"

    @property
    def overlay(self) -> Path:
        return self.root / "overlays" / f"{self.clip_id}.mp4"

    @property
    def failure(self) -> Path:
        return self.root / "failures" / f"{self.clip_id}.json"

    @property
    def pictures(self) -> Path:
        """The folder of the clip's PNG files; clips in a folder of the same name have theirs in folders below."""
        return self.root / "pictures" / self.clip_id

    @property
    def report(self) -> ClipReportPaths:
        """The clip's part of the report."""
        return ClipReportPaths(self.root / "report", self.clip_id)


@dataclass(frozen=True)
class ClipReportPaths:
    """What the report holds of one clip."""

    root: Path
    clip_id: str

    @property
    def data(self) -> Path:
        """What its page shows; a script, because a page on the disk may read no other file."""
        return self.root / "data" / "clips" / f"{self.clip_id}.js"

    @property
    def video(self) -> Path:
        return self.root / "videos" / f"{self.clip_id}.mp4"

    def picture(self, frame: int) -> Path:
        return self.root / "pictures" / self.clip_id / f"frame_{frame:06d}.jpg"


@dataclass(frozen=True)
class RunPaths:
    """Output files of one run."""

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

    def quarantine(self, clip_id: str) -> Path:
        """Where a broken result goes, for people to look at."""
        return self.root / "quarantine" / f"{clip_id}.h5"

    @property
    def summary(self) -> Path:
        return self.root / "summary.csv"

    @property
    def report(self) -> Path:
        """The folder of the report; its first page is index.html."""
        return self.root / "report"

    @property
    def index(self) -> Path:
        """What `aot.open_run` knows of the clips."""
        return self.root / "index.npz"

    def export(self, name: str) -> Path:
        """The folder of the results in another format."""
        return self.root / "export" / name

    @property
    def scores_csv(self) -> Path:
        """Scores against ground truth, a row for the dataset, each clip and each object."""
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
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def submissions(self) -> Path:
        """What was handed to a scheduler: one file an array of tasks, and the scheduler's own files beside it."""
        return self.root / "logs" / "slurm"

    def ledger(self, worker: str) -> Path:
        return self.ledgers / f"{worker}.jsonl"

    def log(self, worker: str) -> Path:
        return self.logs / f"{worker}.log"


@dataclass(frozen=True)
class SweepPaths:
    """Output files of a sweep, beside the run folders in it."""

    root: Path

    @property
    def page(self) -> Path:
        return self.root / "report" / "index.html"

    @property
    def picture(self) -> Path:
        return self.root / "report" / "sweep.svg"

    @property
    def table(self) -> Path:
        return self.root / "report" / "sweep.csv"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name of our own; it gets `path` only when it is whole and on the disk.

    A twin that writes the same file at the same time is harmless: each has its own temporary name, and the later
    rename wins with an equally whole file.

    Raises:
        WriteError: the folder cannot be written, or the disk is full. Errors of the caller's own writing pass through.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not after the clip: its name may use up the 255 bytes that most file systems allow.
        prefix = f".{host()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix + PART_SUFFIX, dir=path.parent)
        os.fchmod(handle, 0o666 & ~_umask())
        os.close(handle)
    part = Path(name)
    try:
        yield part
        with write_errors(path):
            _flush(part)
            part.replace(path)
            _flush(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes the place of `path`, whatever is there, only when it is whole.

    Raises:
        WriteError: it cannot be written. Errors of the caller's own making pass through, other than the system's.
    """
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{host()}-{os.getpid()}-"
        part = Path(tempfile.mkdtemp(prefix=prefix, suffix=PART_SUFFIX, dir=path.parent))
        part.chmod(0o777 & ~_umask())
        try:
            yield part
            shutil.rmtree(path, ignore_errors=True)
            part.rename(path)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors into a WriteError that names the file."""
    try:
        yield
    except OSError as exc:
        raise WriteError(f"{path} could not be written: {exc}; check that its folder is writable and has room") from exc


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step; readers see the old or the new one."""
    with replacing(path) as part, write_errors(path):
        part.write_text(text, encoding="utf-8")


def remove_abandoned_parts(root: Path) -> int:
    """Delete temporary files that dead processes left below a run folder; returns how many.

    Of processes on other machines nothing is known from here: theirs go when nobody has written to them for a day.
    """
    return _remove_parts(root, lambda part, owner: not is_alive(owner[1]) if owner[0] == host() else _is_old(part))


def remove_parts_of(root: Path, owners: Collection[tuple[str, int]]) -> int:
    """Delete temporary files that these processes, each a host and a pid, left below a run folder."""
    return _remove_parts(root, lambda part, owner: owner in owners)


def host() -> str:
    """This machine, as the scheduler calls it where there is one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _remove_parts(root: Path, is_to_go: Callable[[Path, tuple[str, int]], bool]) -> int:
    removed = 0
    for part in root.rglob(f".*{PART_SUFFIX}"):
        name, _, rest = part.name[1:].rpartition("-")[0].rpartition("-")
        if rest.isdecimal() and part.is_file() and is_to_go(part, (name, int(rest))):
            part.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_old(path: Path) -> bool:
    """Whether nobody has written to it for a day."""
    try:
        return time.time() - path.stat().st_mtime > 24 * 3600
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    """Whether a process of this machine lives; one that has ended, and whose parent has not noticed, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # gone meanwhile, or a system that hides it
        return True
    return state != "Z"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
