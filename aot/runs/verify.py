"""Check that a run folder is complete: every file against the schema, the clip list and its recorded SHA-256.

Files are opened in a child process, because the HDF5 library hangs or crashes on some damaged files.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import cast

from aot.errors import ResultError
from aot.paths import RunPaths
from aot.runs.failure import read_failure
from aot.runs.ledger import last_computed, last_done
from aot.runs.quarantine import may_be_replaced
from aot.runs.run_json import read_run_json
from aot.system.hashing import sha256_of
from aot.system.interrupts import interrupts_blocked
from aot.system.os_errors import os_problem
from aot.types import ClipResult
from aot.writing.reader import check_contents, check_file, load
from aot.writing.schema import OtherSchema

# Per file. An intact file of many gigabytes takes less, even on a slow disk.
STALL_SECONDS = 600.0

# Exit codes of a process that crashed while it read a damaged file.
_CRASHES = [-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)]

INTERNAL_ERROR = "aot failed to check it"


class State(Enum):
    """State of a clip, as printed."""

    COMPLETE = "complete"
    BROKEN = "broken"
    UNCHECKED = "not checked"
    """The file may be intact: it is not readable here, has another version's schema, or changed during the check."""
    FAILED = "failed"
    PENDING = "pending"
    UNLISTED = "not in run.json"


@dataclass(frozen=True)
class Finding:
    """The state of one clip, or of one file that belongs to no clip."""

    clip_id: str
    state: State
    reason: str = ""
    is_compared: bool = True
    """False if the file's SHA-256 should have been compared but none was recorded."""


@dataclass(frozen=True)
class Expected:
    """Values that a clip's file is compared with."""

    clip_id: str
    config_hash: str
    file_sha256: str | None
    """As the worker recorded it; None if the worker was killed before it could."""


@dataclass(frozen=True)
class Verdict:
    """Result of checking one file."""

    state: State
    reason: str = ""


class FileChecker:
    """Checks files in a child process, which is replaced when it crashes or hangs. Use it as a context manager.

    Args:
        stall_seconds: a file whose check takes longer counts as broken.
    """

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self._stall_seconds = stall_seconds
        self._child: multiprocessing.process.BaseProcess | None = None

    def examine(self, path: Path, expected: Expected, *, quick: bool) -> Verdict:
        """Check one file.

        Args:
            path: the HDF5 file.
            expected: values to compare it with.
            quick: check only the structure, not the bulk data or the SHA-256.
        Returns:
            COMPLETE, BROKEN or UNCHECKED, with the reason.
        """
        verdict = self._ask(path, expected, quick)
        if verdict is None:
            # HDF5 does not free all memory after some damaged files, so an earlier file may have used it up.
            self._stop()
            verdict = self._ask(path, expected, quick)
        return verdict or Verdict(
            State.UNCHECKED, f"{path}: not enough memory to read it; check it on a machine with more"
        )

    def _ask(self, path: Path, expected: Expected, quick: bool) -> Verdict | None:
        """The child's verdict; None if its memory was not sufficient."""
        child = self._child or self._start()
        try:
            self._pipe.send((path, expected, quick))
            if self._pipe.poll(self._stall_seconds):
                return cast(Verdict | None, self._pipe.recv())
            reason = f"the HDF5 library did not return within {self._stall_seconds:g} s"
        except (EOFError, ConnectionError):
            child.join()
            self._stop()
            reason = f"the process that read it died (exit code {child.exitcode})"
            if child.exitcode not in _CRASHES:  # it could not start, or was killed
                return Verdict(State.UNCHECKED, f"{path}: {reason}")
        self._stop()
        return Verdict(State.BROKEN, f"{path}: {reason}; the file is damaged")

    def _start(self) -> multiprocessing.process.BaseProcess:
        context = multiprocessing.get_context("spawn")  # a fork would inherit h5py's locks
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(theirs,), daemon=True)
        with interrupts_blocked():
            self._child.start()
        theirs.close()
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.join()
            self._pipe.close()
            self._child = None

    def __enter__(self) -> FileChecker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def verify_run(paths: RunPaths, *, quick: bool = False) -> Iterator[Finding]:
    """Check every clip that run.json lists, and report files in clips/ that belong to none.

    Args:
        paths: of the run folder.
        quick: check only the structure of the files, not their bulk data or SHA-256.
    Raises:
        ConfigError: not a run folder.
    """
    run = read_run_json(paths)
    recorded = _Recorded(paths, run["clips"])
    with FileChecker() as checker:
        for clip_id in run["clips"]:
            path = paths.clip(clip_id).result
            if not path.exists():
                yield _without_file(paths, clip_id)
                continue
            expected = Expected(clip_id, run["config_hash"], recorded.sha256_of(clip_id))
            verdict = checker.examine(path, expected, quick=quick)
            if verdict.state is State.BROKEN and recorded.is_outdated(clip_id):
                recorded = _Recorded(paths, run["clips"])
                expected = replace(expected, file_sha256=recorded.sha256_of(clip_id))
                verdict = checker.examine(path, expected, quick=quick)
                if verdict.state is State.BROKEN:
                    reason = f"{path} was written during the check; check again when its worker has finished"
                    verdict = Verdict(State.UNCHECKED, reason)
            is_compared = quick or expected.file_sha256 is not None
            yield Finding(clip_id, verdict.state, verdict.reason, is_compared=is_compared)
    listed = {paths.clip(clip_id).result for clip_id in run["clips"]}
    for path in sorted(set(paths.results.rglob("*.h5")) - listed):
        clip_id = path.relative_to(paths.results).with_suffix("").as_posix()
        yield Finding(clip_id, State.UNLISTED, f"{path} belongs to no clip of the run; aot did not write it there")


class _Recorded:
    """What the ledgers record about the result files; read once.

    Args:
        paths: of the run folder.
        clip_ids: the clips of the run.
    """

    def __init__(self, paths: RunPaths, clip_ids: Iterable[str]) -> None:
        self._paths = paths
        self._files = {clip_id: _identity(paths.clip(clip_id).result) for clip_id in clip_ids}
        self._done = last_done(paths, "file_sha256")
        self._started = last_computed(paths)

    def sha256_of(self, clip_id: str) -> str | None:
        """SHA-256 of a clip's file; None if a later attempt may have replaced the file without recording it."""
        done, started = self._done.get(clip_id), self._started.get(clip_id)
        if done is None or may_be_replaced(done, started):
            return None
        found: str | None = done["file_sha256"]
        return found

    def is_outdated(self, clip_id: str) -> bool:
        """Whether a clip's file was replaced since the ledgers were read."""
        return _identity(self._paths.clip(clip_id).result) != self._files[clip_id]


def _identity(path: Path) -> tuple[int, int, int] | None:
    """Inode, size and modification time of a file, which differ from those of a file that replaces it."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _without_file(paths: RunPaths, clip_id: str) -> Finding:
    failure = read_failure(paths.clip(clip_id))
    if failure:
        return Finding(clip_id, State.FAILED, f"[{failure['class']}] {failure.get('message', '')}")
    return Finding(clip_id, State.PENDING)


def _serve(pipe: Connection) -> None:
    """Main function of the child process: check each file that it is sent."""
    try:
        while True:
            path, expected, quick = pipe.recv()
            try:
                verdict = _examine(path, expected, quick=quick)
            except MemoryError:
                verdict = None
            except Exception as error:  # noqa: BLE001 (an error of ours must not stop the check of the other files)
                reason = f"{path}: {INTERNAL_ERROR} ({type(error).__name__}: {error}); please report it"
                verdict = Verdict(State.UNCHECKED, reason)
            pipe.send(verdict)
    except EOFError:
        return


def _examine(path: Path, expected: Expected, *, quick: bool) -> Verdict:
    """Check one file in this process.

    Raises:
        MemoryError: the file needs more memory than is free.
    """
    try:
        if not path.is_file():
            raise ResultError(f"{path} is not a file; expected the clip's result")
        # First, because it does not need the HDF5 library.
        if quick:
            path.open("rb").close()
        else:
            _check_sha256(path, expected.file_sha256)
        check_file(path)
        result = load(path, masks=False)
        _check_identity(path, result, expected)
        _check_frames(path, result)
        if not quick:
            check_contents(path)
    except OSError as exc:
        return Verdict(State.UNCHECKED, f"{path} cannot be read: {os_problem(exc)}")
    except OtherSchema as error:
        return Verdict(State.UNCHECKED, str(error))
    except ResultError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        return Verdict(State.BROKEN, str(error))
    return Verdict(State.COMPLETE)


def _check_identity(path: Path, result: ClipResult, expected: Expected) -> None:
    for name in ("clip_id", "config_hash"):
        found, wanted = result.attributes[name], getattr(expected, name)
        if not isinstance(found, str) or found != wanted:
            raise ResultError(f"{path}: {name} is {found!r}, expected {wanted!r}: the file is of another run or clip")


def _check_frames(path: Path, result: ClipResult) -> None:
    """Check that the rows are the frames that frame_interval keeps, plus the frames of prompts and queries."""
    number, interval = int(result.attributes["num_source_frames"]), int(result.attributes["frame_interval"])
    if not len(result.index) or result.index[0] < 0 or result.index[-1] >= number:
        raise ResultError(f"{path}: frames/index is not within the {number} frames of the source")
    prompts = [prompt for of_object in result.object_prompts for prompt in of_object]
    required = {prompt["frame"] for prompt in prompts}
    required |= {int(query[0]) for prompt in prompts for query in prompt.get("query_points", ())}
    # A time range may omit frames at either end, but none in between. A range object, because a damaged file may
    # claim any number of frames.
    if "sample_fps" in result.attributes:
        _check_sampled_frames(path, result, required)
        return
    first, last = int(result.index[0]), int(result.index[-1])
    kept = range(-(-first // interval) * interval, last + 1, interval)
    found = set(result.index.tolist())
    num_missing = len(kept) - sum(frame in kept for frame in found)
    unexpected = {frame for frame in found if frame not in kept} - required
    if num_missing or unexpected:
        raise ResultError(
            f"{path}: the frames are not those that frame_interval={interval}, the prompts and the queries require: "
            f"{num_missing} missing, {len(unexpected)} unexpected"
        )


def _check_sampled_frames(path: Path, result: ClipResult, required: set[int]) -> None:
    """Check the number of rows of a result whose frames were chosen by time; the file lacks the other frames' times.

    Args:
        path: of the file.
        result: its index is within the source.
        required: frames of prompts and queries.
    """
    attributes = result.attributes
    interval = int(attributes["frame_interval"])
    num_kept = -(-int(attributes["num_sampled_frames"]) // interval)
    # The first frame of the time range is always chosen. Whether those of prompts are is not known.
    num_certain = 1 + len(set(result.index[1:].tolist()) - required)
    if not num_certain <= num_kept <= len(result.index):
        raise ResultError(
            f"{path}: the frames are not those that sample_fps={attributes['sample_fps']:g}, "
            f"frame_interval={interval}, the prompts and the queries require: {len(result.index)} rows, expected "
            f"{num_kept} chosen by time and those of prompts and queries"
        )


def _check_sha256(path: Path, recorded: str | None) -> None:
    found = sha256_of(path)
    if recorded is not None and found != recorded:
        raise ResultError(
            f"{path} has changed since it was written: its SHA-256 is {found[:12]}…, expected {recorded[:12]}… as "
            f"recorded in ledger/"
        )
