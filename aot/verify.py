"""Is a run whole? Every file is opened and held against the schema, the clip list and what was recorded of it.

Files are opened in a process of its own: on some damaged files the HDF5 library never comes back, or crashes.

python -m aot.verify RUN              every chunk of every file, and its SHA-256
python -m aot.verify RUN --quick      the structure alone: no bulk data is read
python -m aot.verify RUN --repair     sets broken files aside; the run's own command then makes them anew
"""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import cast

from aot.errors import AotError, ResultError, WriteError
from aot.paths import RunPaths
from aot.runs.failure import read_failure
from aot.runs.ledger import last_done, last_events
from aot.runs.run_json import read_run_json
from aot.runs.task import Work
from aot.system.cli import run_command
from aot.system.hashing import sha256_of
from aot.types import ClipResult
from aot.writing.reader import check_contents, check_file, load
from aot.writing.schema import OtherSchema

EXIT_WHOLE, EXIT_NOT_WHOLE, EXIT_WRONG = 0, 1, 2

# Of one file. A whole one of many gigabytes takes less on a slow disk.
STALL_SECONDS = 600.0

# How a process ends that a damaged file has led astray.
_CRASHES = [-number for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)]

MISTAKE = "aot failed to check it"


class State(Enum):
    """What is found of a clip."""

    WHOLE = "whole"
    BROKEN = "broken"
    UNCHECKED = "not checked"
    """It may well be whole: it cannot be read here, is another version's, or was written while this looked."""
    FAILED = "failed"
    PENDING = "pending"
    UNLISTED = "not in run.json"


@dataclass(frozen=True)
class Finding:
    """One clip, or one file that belongs to none."""

    clip_id: str
    state: State
    reason: str = ""
    is_compared: bool = True
    """Whether its SHA-256 was held against the recorded one, where it was to be."""


@dataclass(frozen=True)
class Expected:
    """What a clip's file is held against."""

    clip_id: str
    config_hash: str
    file_sha256: str | None
    """As the worker recorded it; None where it recorded none, because it was killed first."""


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one file."""

    state: State
    reason: str = ""


class FileChecker:
    """Examines files in a child process, which is replaced when it crashes or stands still; a context."""

    def __init__(self, stall_seconds: float = STALL_SECONDS) -> None:
        self._stall_seconds = stall_seconds
        self._child: multiprocessing.process.BaseProcess | None = None

    def examine(self, path: Path, expected: Expected, *, quick: bool) -> Verdict:
        """Whether a file is whole, broken, or cannot be checked."""
        verdict = self._ask(path, expected, quick)
        if verdict is None:
            # The library keeps memory for some damaged files: that of an earlier one must not speak against this one.
            self._stop()
            verdict = self._ask(path, expected, quick)
        return verdict or Verdict(
            State.UNCHECKED, f"{path}: there is not the memory to read it; check it on a machine with more"
        )

    def _ask(self, path: Path, expected: Expected, quick: bool) -> Verdict | None:
        """What the child says; None where its memory did not suffice."""
        child = self._child or self._start()
        try:
            self._pipe.send((path, expected, quick))
            if self._pipe.poll(self._stall_seconds):
                return cast(Verdict | None, self._pipe.recv())
            reason = f"the HDF5 library has not come back from it for {self._stall_seconds:g} s"
        except (EOFError, ConnectionError):
            child.join()
            self._stop()
            reason = f"the process that read it died (exit code {child.exitcode})"
            if child.exitcode not in _CRASHES:  # it could not even start, or somebody killed it
                return Verdict(State.UNCHECKED, f"{path}: {reason}")
        self._stop()
        return Verdict(State.BROKEN, f"{path}: {reason}; the file is damaged")

    def _start(self) -> multiprocessing.process.BaseProcess:
        context = multiprocessing.get_context("spawn")  # a fork would take h5py's locks along
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_examine_all, args=(theirs,), daemon=True)
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
    """Check every clip that run.json lists, and every file that lies among the results.

    Args:
        paths: of the run folder.
        quick: leave the bulk of the files unread.
    Raises:
        ConfigError: it is no run folder.
    """
    run = read_run_json(paths)
    recorded = _Recorded(paths)
    with FileChecker() as checker:
        for clip_id in run["clips"]:
            path = paths.clip(clip_id).result
            if not path.exists():
                yield _without_file(paths, clip_id)
                continue
            expected = Expected(clip_id, run["config_hash"], recorded.sha256_of(clip_id))
            verdict = checker.examine(path, expected, quick=quick)
            if verdict.state is State.BROKEN and recorded.is_outdated(path):
                recorded = _Recorded(paths)
                expected = replace(expected, file_sha256=recorded.sha256_of(clip_id))
                verdict = checker.examine(path, expected, quick=quick)
                if verdict.state is State.BROKEN:
                    reason = f"{path} was written while this looked; look again when its worker has finished it"
                    verdict = Verdict(State.UNCHECKED, reason)
            is_compared = quick or expected.file_sha256 is not None
            yield Finding(clip_id, verdict.state, verdict.reason, is_compared=is_compared)
    listed = {paths.clip(clip_id).result for clip_id in run["clips"]}
    for path in sorted(set(paths.results.rglob("*.h5")) - listed):
        clip_id = path.relative_to(paths.results).with_suffix("").as_posix()
        yield Finding(clip_id, State.UNLISTED, f"{path} belongs to no clip of the run; it was put there by hand")


class _Recorded:
    """What the ledgers say of the results, as they were read once."""

    def __init__(self, paths: RunPaths) -> None:
        self._read_at = time.time()
        self._done = last_done(paths, "file_sha256")
        self._started = last_events(paths, "started", "work")

    def sha256_of(self, clip_id: str) -> str | None:
        """Of the clip's file; None where a later attempt may have replaced it and was killed before it said so."""
        done, started = self._done.get(clip_id), self._started.get(clip_id)
        if done is None or (started and started["work"] == Work.ALL.value and started["at"] > done["at"]):
            return None
        found: str | None = done["file_sha256"]
        return found

    def is_outdated(self, path: Path) -> bool:
        """Whether a file may be newer than what was read of the ledgers."""
        try:
            return path.stat().st_mtime > self._read_at
        except OSError:
            return True


def quarantine(paths: RunPaths, clip_id: str) -> Path:
    """Move a broken file out of the results, so that its clip is pending again; returns where it is kept.

    A record of a failure goes too: what failed of a broken file, to be drawn for one, says nothing of the clip.

    Raises:
        WriteError: it cannot be moved.
    """
    source, target, number = paths.clip(clip_id).result, paths.quarantine(clip_id), 1
    while target.exists():
        number += 1
        target = paths.quarantine(f"{clip_id}.{number}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
        paths.clip(clip_id).failure.unlink(missing_ok=True)
    except OSError as exc:
        raise WriteError(
            f"{source} cannot be moved to {target}: {exc}; check that the run folder is writable and {target.parent} "
            f"a folder"
        ) from exc
    return target


def _without_file(paths: RunPaths, clip_id: str) -> Finding:
    failure = read_failure(paths.clip(clip_id))
    if failure:
        return Finding(clip_id, State.FAILED, f"[{failure['class']}] {failure.get('message', '')}")
    return Finding(clip_id, State.PENDING)


def _examine_all(pipe: Connection) -> None:
    """The child process: what is wrong with each file it is sent."""
    try:
        while True:
            path, expected, quick = pipe.recv()
            try:
                verdict = _examine(path, expected, quick=quick)
            except MemoryError:
                verdict = None
            except Exception as error:  # noqa: BLE001 (a mistake of ours must not stop the other files)
                verdict = Verdict(State.UNCHECKED, f"{path}: {MISTAKE} ({type(error).__name__}: {error}): report it")
            pipe.send(verdict)
    except (EOFError, KeyboardInterrupt):
        return


def _examine(path: Path, expected: Expected, *, quick: bool) -> Verdict:
    """What is to be said of a file.

    Raises:
        MemoryError: it needs more than there is, or than earlier files have left.
    """
    try:
        if not path.is_file():
            raise ResultError(f"{path} is no file; expected the clip's result")
        # First: a file that is not what it was needs no library to tell.
        if quick:
            path.open("rb").close()
        else:
            _check_digest(path, expected.file_sha256)
        check_file(path)
        result = load(path, masks=False)
        _check_identity(path, result, expected)
        _check_frames(path, result)
        if not quick:
            check_contents(path)
    except OSError as exc:
        return Verdict(State.UNCHECKED, f"{path} cannot be read: {exc}; check its permissions and the disk")
    except OtherSchema as error:
        return Verdict(State.UNCHECKED, str(error))
    except ResultError as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        return Verdict(State.BROKEN, str(error))
    return Verdict(State.WHOLE)


def _check_identity(path: Path, result: ClipResult, expected: Expected) -> None:
    for name in ("clip_id", "config_hash"):
        found, wanted = result.attributes[name], getattr(expected, name)
        if not isinstance(found, str) or found != wanted:
            raise ResultError(f"{path}: {name} is {found!r}, expected {wanted!r}: it is another run's or clip's file")


def _check_frames(path: Path, result: ClipResult) -> None:
    """The rows are the frames that the interval keeps, and frames that a prompt or a query asks for besides."""
    number, interval = int(result.attributes["num_source_frames"]), int(result.attributes["frame_interval"])
    if not len(result.index) or result.index[0] < 0 or result.index[-1] >= number:
        raise ResultError(f"{path}: frames/index is not within the {number} frames of the source")
    prompts = [prompt for of_object in result.object_prompts for prompt in of_object]
    asked = {prompt["frame"] for prompt in prompts}
    asked |= {int(query[0]) for prompt in prompts for query in prompt.get("query_points", ())}
    # A time range may leave out frames at either end, but none in between. As a range: the numbers may be absurd.
    first, last = int(result.index[0]), int(result.index[-1])
    spaced = range(-(-first // interval) * interval, last + 1, interval)
    found = set(result.index.tolist())
    num_missing = len(spaced) - sum(frame in spaced for frame in found)
    unasked = {frame for frame in found if frame not in spaced} - asked
    if num_missing or unasked:
        raise ResultError(
            f"{path}: of the frames that frame_interval={interval} keeps, {num_missing} are missing, and "
            f"{len(unasked)} are there that nothing asks for"
        )


def _check_digest(path: Path, recorded: str | None) -> None:
    found = sha256_of(path)
    if recorded is not None and found != recorded:
        raise ResultError(
            f"{path} has changed since it was written: its SHA-256 is {found[:12]}…, expected {recorded[:12]}… as "
            f"recorded in ledger/"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m aot.verify",
        description="Open every file of a run and check it against the schema, its recorded SHA-256, its frames and "
        "the clip list. Exit codes: 0 every listed clip is whole, and nothing else is there; 1 some are broken, not "
        "checked, failed or pending; 2 no run folder, or wrong arguments.",
    )
    parser.add_argument("run", type=Path, help="a run folder, such as outputs/davis/sam2-cotracker3-k1-0123abcd")
    parser.add_argument("--quick", action="store_true", help="check the structure alone, leave the bulk unread")
    parser.add_argument("--repair", action="store_true", help="move broken files to quarantine/: pending again")
    options = parser.parse_args(arguments)
    paths = RunPaths(options.run)
    counts: Counter[State] = Counter()
    num_not_compared = 0
    try:
        for finding in verify_run(paths, quick=options.quick):
            counts[finding.state] += 1
            num_not_compared += not finding.is_compared
            if finding.state is not State.WHOLE:
                print(f"{finding.clip_id}: {finding.state.value}{': ' if finding.reason else ''}{finding.reason}")
            if finding.state is State.BROKEN and options.repair:
                print(f"{finding.clip_id}: set aside as {quarantine(paths, finding.clip_id)}; pending again")
    except AotError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    told = ", ".join(f"{counts[state]} {state.value}" for state in State if counts[state])
    print(f"{options.run}: {told or 'no clips'}")
    if num_not_compared:
        print(f"{num_not_compared} of them have no recorded SHA-256 to compare with; their structure was checked")
    if counts[State.BROKEN]:
        print(
            "run the command that made it again: it takes what is pending"
            if options.repair
            else "`--repair` sets broken files aside and makes their clips pending"
        )
    return EXIT_WHOLE if set(counts) <= {State.WHOLE} else EXIT_NOT_WHOLE


if __name__ == "__main__":
    sys.exit(run_command(main))
