"""Where the ledgers of a run are: those of living workers, those that have ended, and batches of ended ones.

    ledger/<worker>.jsonl            may still be appended to; the only files that are looked at again and again
    ledger/ended/<worker>.jsonl      moved there by its supervisor, when it has no more work; never changes
    ledger/ended/batch-<id>.jsonl    some hundred ended ledgers in one file, so that a large run has few files

The first line of a batch is its head: which ledgers follow, with their sizes in bytes, and a summary of them for
`aot.status`, which then does not read the events. A ledger that is moved while it is read is found at its new place.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

from aot.paths import RunPaths
from aot.system.files import replacing, write_errors
from aot.system.lock_files import create_lock, read_lock, release_lock, remove_stale_lock
from aot.system.processes import host, is_alive

# Reading a batch takes about as long as reading this many ledgers of sixteen clips takes to open.
BATCH_LEDGERS = 256
BATCH = "batch"
_BATCH_PREFIX = "batch-"
_MAX_LISTINGS = 10
_LOCK_SECONDS = 600.0
_DAY_SECONDS = 24 * 3600.0
# `<task>.<host>-<pid>-<slot>`; without a scheduler or a supervisor, parts of it are missing.
_WORKER_NAME = re.compile(r"(?:\d+(?:_\d+)?\.)?(?P<host>.+?)-(?P<pid>\d+)(?:-(?:draw)?\d+)?")


@dataclass(frozen=True)
class Part:
    """The bytes of one ledger within a file."""

    worker: str
    start: int
    end: int | None
    """None: up to the end of the file, which may grow."""


@dataclass(frozen=True)
class LedgerFile:
    """A file with one ledger, or a batch with several."""

    path: Path
    parts: tuple[Part, ...]
    stat: os.stat_result | None = None
    """Of the ledger of a living worker; the others do not change."""
    summary: Any = None
    """Of a batch: what `aot.status` needs of it."""

    @property
    def is_batch(self) -> bool:
        return self.path.name.startswith(_BATCH_PREFIX)

    def has(self, worker: str) -> bool:
        """Whether the ledger of a worker is in it."""
        return any(part.worker == worker for part in self.parts)


def open_ledgers(paths: RunPaths) -> list[tuple[Path, os.stat_result]]:
    """The ledgers of workers that may be alive, and their state, by name."""
    found = []
    for entry in _entries(paths.ledgers):
        if entry.name.endswith(".jsonl") and entry.is_file():
            with suppress(FileNotFoundError):  # moved, because its worker has ended
                found.append((Path(entry.path), entry.stat()))
    return sorted(found)


def ledger_files(paths: RunPaths, known: Collection[str] = ()) -> list[LedgerFile]:
    """All files with ledgers; each ledger is in one of them.

    Args:
        paths: of the run.
        known: names of ended files that are not needed, so that they are not opened.
    """
    living = open_ledgers(paths)
    # After the living ones: a ledger that is moved meanwhile is listed twice, not missed.
    singles: list[Path] = []
    batches: list[Path] = []
    for entry in sorted(_entries(paths.ended_ledgers), key=lambda entry: entry.name):
        if entry.name.endswith(".jsonl") and entry.name not in known and entry.is_file():
            (batches if entry.name.startswith(_BATCH_PREFIX) else singles).append(Path(entry.path))
    ended = {path.name for path in singles}
    files = [
        LedgerFile(path, (Part(path.stem, 0, None),), stat)
        for path, stat in living
        if path.name not in ended or path.exists()
    ]
    in_batches: set[str] = set()
    for path in batches:
        batch = _read_batch(path)
        if batch is not None:
            files.append(batch)
            in_batches |= {part.worker for part in batch.parts}
    return files + [LedgerFile(path, (Part(path.stem, 0, None),)) for path in singles if path.stem not in in_batches]


@contextmanager
def opened(paths: RunPaths, file: LedgerFile) -> Iterator[tuple[BinaryIO, tuple[Part, ...]]]:
    """Open a file; a ledger that was moved since it was listed is opened at its new place.

    Yields:
        The file, and the places of the ledgers in it.
    """
    stream, parts = _open_moved(paths, file)
    with stream:
        yield stream, parts


def _open_moved(paths: RunPaths, file: LedgerFile) -> tuple[BinaryIO, tuple[Part, ...]]:
    path, parts = file.path, file.parts
    for _ in range(_MAX_LISTINGS):
        try:
            return path.open("rb"), parts
        except FileNotFoundError:
            worker = file.path.stem
            path, parts = paths.ended_ledgers / file.path.name, file.parts
            if not path.exists():
                batch = next((each for each in ledger_files(paths) if each.is_batch and each.has(worker)), None)
                if batch is None:
                    raise
                path, parts = batch.path, tuple(part for part in batch.parts if part.worker == worker)
    raise FileNotFoundError(file.path)


def end_ledgers(paths: RunPaths, workers: Collection[str]) -> None:
    """Move the ledgers of workers that will not write any more to ended/; those that cannot be moved stay."""
    for worker in workers:
        source, target = paths.ledger(worker), paths.ended_ledgers / f"{worker}.jsonl"
        with suppress(OSError):
            if source.exists() and not target.exists():  # an earlier process may have had the same name
                paths.ended_ledgers.mkdir(exist_ok=True)
                source.rename(target)


def end_dead_ledgers(paths: RunPaths) -> None:
    """Move the ledgers of dead processes of this machine, and those that nothing has touched for a day."""
    dead = []
    for path, stat in open_ledgers(paths):
        found = _WORKER_NAME.fullmatch(path.stem)
        is_own = found is not None and found["host"] == host()
        if (
            found is not None and is_own and not is_alive(int(found["pid"]))
        ) or time.time() - stat.st_mtime > _DAY_SECONDS:
            dead.append(path.stem)
    end_ledgers(paths, dead)


def end_ledgers_of_tasks(paths: RunPaths, scheduler_tasks: Collection[str]) -> None:
    """Move the ledgers of scheduler's tasks that have ended."""
    names = [path.stem for path, _ in open_ledgers(paths)]
    end_ledgers(paths, [name for name in names if name.partition(".")[0] in scheduler_tasks])


def ledgers_of_task(paths: RunPaths, scheduler_task: str) -> list[LedgerFile]:
    """The ledgers of the workers of a scheduler's task, of all its starts; those in batches are not found."""
    prefix = f"{scheduler_task}."
    return [
        LedgerFile(Path(entry.path), (Part(entry.name.removesuffix(".jsonl"), 0, None),))
        for folder in (paths.ledgers, paths.ended_ledgers)
        for entry in _entries(folder)
        if entry.name.startswith(prefix) and entry.name.endswith(".jsonl")
    ]


def ended_names(paths: RunPaths) -> set[str]:
    """The names of all files in ended/ that have ledgers."""
    return {entry.name for entry in _entries(paths.ended_ledgers) if entry.name.endswith(".jsonl")}


def lines_of(stream: BinaryIO, parts: Iterable[Part]) -> Iterator[bytes]:
    """The lines of ledgers in an open file."""
    for part in parts:
        stream.seek(part.start)
        if part.end is None:
            yield from stream
        else:
            yield from stream.read(part.end - part.start).splitlines(keepends=True)


def make_batch(paths: RunPaths, summarize: Callable[[Iterator[bytes]], Any], *, at_least: int = BATCH_LEDGERS) -> bool:
    """Merge ended ledgers into a batch, if there are many; whether it was done.

    Args:
        paths: of the run.
        summarize: the summary of some lines of ledgers, for the head.
        at_least: number of ledgers.
    Raises:
        WriteError: the run folder cannot be written.
    """
    if sum(entry.name.endswith(".jsonl") for entry in _entries(paths.ended_ledgers)) < at_least:
        return False
    files = [file for file in ledger_files(paths) if file.path.parent == paths.ended_ledgers]
    merged = {part.worker for file in files if file.is_batch for part in file.parts}
    singles = [file.path for file in files if not file.is_batch]
    if len(singles) < at_least:
        _remove_merged(paths, merged)
        return False
    with _merging(paths.ended_ledgers / "merging.lock") as is_held:
        if not is_held:
            return False
        _remove_merged(paths, merged)
        contents = [(path.stem, path.read_bytes()) for path in singles if path.exists()]
        complete = [(worker, content[: content.rfind(b"\n") + 1]) for worker, content in contents]
        head = {
            "event": BATCH,
            "ledgers": [[worker, len(content)] for worker, content in complete],
            "summary": summarize(line for _, content in complete for line in content.splitlines()),
        }
        target = paths.ended_ledgers / f"{_BATCH_PREFIX}{uuid4().hex}.jsonl"
        with replacing(target) as part, write_errors(target), part.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n")
            for _, content in complete:
                file.write(content)
        _remove_merged(paths, {worker for worker, _ in complete})
    return True


def _remove_merged(paths: RunPaths, workers: Collection[str]) -> None:
    """Remove ledgers that are in a batch; they may remain where merging was interrupted, and are not read there."""
    for worker in workers:
        with suppress(OSError):
            (paths.ended_ledgers / f"{worker}.jsonl").unlink()


@contextmanager
def _merging(path: Path) -> Iterator[bool]:
    """Whether this process is the only one that merges; a lock that is left over is removed."""
    holder = read_lock(path)
    if _is_left_over(path, holder):
        remove_stale_lock(path, holder)
    own = {"host": host(), "pid": os.getpid(), "token": uuid4().hex}
    with write_errors(path):
        is_held = create_lock(path, own)
    try:
        yield is_held
    finally:
        with suppress(OSError):
            release_lock(path, own)


def _is_left_over(path: Path, holder: Mapping[str, Any] | None) -> bool:
    """Whether the process that holds a lock is dead, or has held it for longer than merging takes."""
    if holder is not None and holder.get("host") == host() and not is_alive(int(holder.get("pid", 0))):
        return True
    try:
        return time.time() - path.stat().st_mtime > _LOCK_SECONDS
    except OSError:
        return False


def _read_batch(path: Path) -> LedgerFile | None:
    """A batch with the places of its ledgers; None if it is not one, or was removed."""
    try:
        with path.open("rb") as file:
            line = file.readline()
        head: Mapping[str, Any] = json.loads(line)
        start, parts = len(line), []
        for worker, size in head["ledgers"]:
            parts.append(Part(worker, start, start + size))
            start += size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return LedgerFile(path, tuple(parts), summary=head.get("summary"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
