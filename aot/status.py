"""Show the progress of a run, or of all runs of a sweep, from its folder only; the workers may be on any machine.

python -m aot.status RUN            counts, rate, time left, running clips, failures with their logs
python -m aot.status RUN --watch    refreshed until no clip is left
python -m aot.status SWEEP          one line per run of a sweep
"""

from __future__ import annotations

import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aot.errors import printable
from aot.launching.slurm.squeue import ENDED, task_states
from aot.launching.slurm.submissions import read_submissions
from aot.paths import RunPaths
from aot.runs.failure import next_step, read_failure
from aot.runs.folders import is_run, runs_below
from aot.runs.history import is_running
from aot.runs.ledger import LedgerTail, require_run, silent_seconds
from aot.runs.liveness import LedgerWatch
from aot.runs.run_json import read_clip_ids
from aot.runs.state import RunState, seconds_of
from aot.runs.timing import WorkerTimes, describe_busy
from aot.system.cli import EXIT_DONE, EXIT_INTERRUPTED, add_run_argument, output_console, prints_errors, run_command
from aot.system.command_parser import CommandParser
from aot.system.files import names_below
from aot.system.text import counted

NO_PROMPT = "no prompt"
STATES = ("done", "partial", "failed", "running", "pending", NO_PROMPT)

_REFRESH_SECONDS = 5.0
# squeue is called less often than the run folder is read: it loads the cluster's controller.
_SQUEUE_SECONDS = 60.0
# The rate is an average over the last minutes only, because workers come and go.
_RATE_SECONDS = 600.0
_MAX_FAILURES = 20


@dataclass(frozen=True)
class RunningClip:
    """A clip that a worker is processing."""

    worker: str
    host: str
    pid: int
    clip_id: str
    rung: int
    frame_interval: int
    seconds: float
    """Since the attempt started."""
    silent_seconds: float
    """Since the worker's ledger was last written or touched."""


@dataclass(frozen=True)
class FailedClip:
    """A clip that failed, completely or in part."""

    clip_id: str
    kind: str
    """The error class."""
    message: str
    log: str
    """Path of the worker's log."""


@dataclass(frozen=True)
class Status:
    """The state of a run at one moment."""

    root: Path
    counts: Counter[str]
    """Number of clips per state of `STATES`."""
    running: list[RunningClip]
    failed: list[FailedClip]
    clips_per_minute: float
    frames_per_second: float
    worker_times: WorkerTimes
    """Of all workers of the run, also those of earlier commands."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Number of living SLURM tasks per SLURM state."""

    @property
    def num_left(self) -> int:
        return self.counts["running"] + self.counts["pending"]

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the rate of the last minutes; None if it is not known, or no worker is running."""
        return 60 * self.num_left / self.clips_per_minute if self.clips_per_minute and self.running else None

    @property
    def summary(self) -> str:
        """The state of the run in a few words, such as "about 0:12:30 left"."""
        if not self.num_left:
            return "finished"
        if self.seconds_left is not None:
            return f"about {timedelta(seconds=round(self.seconds_left))} left"
        if self.running:
            return "running; time left unknown until a clip is done"
        if self.tasks:
            return "waiting for SLURM"
        return "no worker is running; run the same command again to resume"


class StatusReader:
    """Reads the ledgers of a run once, then only what is appended to them.

    Args:
        paths: of the run folder.
        clock: time in s.
    Raises:
        ConfigError: not a run folder.
    """

    def __init__(self, paths: RunPaths, clock: Callable[[], float] = time.monotonic) -> None:
        self._clip_ids, without_prompt = read_clip_ids(paths)
        self._num_without_prompt = len(without_prompt)
        self._paths = paths
        self._tail = LedgerTail(paths)
        self._ledgers = LedgerWatch(paths, clock)
        self._state = RunState()
        self._tasks: Counter[str] = Counter()
        self._next_squeue = 0.0

    def read(self) -> Status:
        """The current state of the run.

        Raises:
            RunDeleted: the run folder was deleted.
        """
        require_run(self._paths)
        for event in self._tail.new_events(self._state.absorb):
            self._state.add(event)
        now = time.time()
        self._ledgers.look(now=True)
        open_attempts = [event for event in self._state.open.values() if is_running(self._paths, event, self._ledgers)]
        running = [self._running_clip(event, now) for event in open_attempts]
        counts, failed = self._count({clip.clip_id for clip in running})
        clips_per_minute, frames_per_second = self._rates(now)
        if time.monotonic() >= self._next_squeue:
            self._next_squeue = time.monotonic() + _SQUEUE_SECONDS
            self._tasks = self._living_tasks()
        running.sort(key=lambda clip: clip.worker)
        rates = clips_per_minute, frames_per_second
        return Status(self._paths.root, counts, running, failed, *rates, self._state.times, self._tasks)

    def _count(self, running: set[str]) -> tuple[Counter[str], list[FailedClip]]:
        """Count the clips per state, and list those that failed.

        Args:
            running: ids of the running clips.
        """
        finished = names_below(self._paths.results, ".h5")
        failures = names_below(self._paths.failures, ".json")
        counts: Counter[str] = Counter({NO_PROMPT: self._num_without_prompt} if self._num_without_prompt else {})
        failed = []
        for clip_id in self._clip_ids:
            if clip_id in running:
                counts["running"] += 1
            elif clip_id in failures and (record := read_failure(self._paths.clip(clip_id))):
                counts["partial" if clip_id in finished else "failed"] += 1
                message, log = str(record.get("message", "")), str(record.get("log", ""))
                failed.append(FailedClip(clip_id, record["class"], message, log))
            elif clip_id in finished and self._state.is_undrawn(clip_id):
                counts["pending"] += 1
            elif clip_id in finished:
                counts["partial" if self._state.is_partial(clip_id) else "done"] += 1
            else:
                counts["pending"] += 1
        return counts, failed

    def _rates(self, now: float) -> tuple[float, float]:
        """Clips per minute and frames per second, over the last minutes."""
        start = max(now - _RATE_SECONDS, self._state.first_start or now)
        num_frames = self._state.done_since(now - _RATE_SECONDS)
        seconds = max(1.0, now - start)
        return 60 * len(num_frames) / seconds, sum(num_frames) / seconds

    def _running_clip(self, event: dict[str, Any], now: float) -> RunningClip:
        return RunningClip(
            worker=event["worker"],
            host=event["host"],
            pid=event["pid"],
            clip_id=event["clip_id"],
            rung=event["rung"],
            frame_interval=event["frame_interval"],
            seconds=max(0.0, now - seconds_of(event)),
            silent_seconds=max(0.0, silent_seconds(self._paths, event["worker"])),
        )

    def _living_tasks(self) -> Counter[str]:
        states = task_states(task for each in read_submissions(self._paths) for task in each.tasks) or {}
        return Counter(state for state in states.values() if state not in ENDED)


def describe(status: Status) -> Group:
    """The status of a run as text and tables."""
    total = status.counts.total()
    parts = [f"{status.counts[state]} {state}" for state in STATES if status.counts[state]]
    lines = [str(status.root), f"{counted(total, 'clip')}: {', '.join(parts)}"]
    if status.running:
        lines.append(f"{status.clips_per_minute:.1f} clips/min, {status.frames_per_second:.1f} frames/s")
    lines.append(status.summary)
    if status.worker_times.busy_fraction is not None:
        lines.append(describe_busy(status.worker_times))
    if status.tasks:
        lines.append("SLURM tasks: " + ", ".join(f"{count} {state.lower()}" for state, count in status.tasks.items()))
    shown: list[RenderableType] = [Text("\n".join(lines))]
    if status.running:
        shown.append(_running_table(status.running))
    if status.failed:
        shown += _describe_failures(status.root, status.failed)
    return Group(*shown)


def describe_sweep(root: Path, statuses: Sequence[Status]) -> Group:
    """The status of a sweep: one line per run.

    Args:
        root: the folder of the sweep.
        statuses: of its runs.
    """
    states = [state for state in STATES if state != NO_PROMPT or any(status.counts[state] for status in statuses)]
    table = _table("run", *states, "state")
    for column in table.columns[1 : 1 + len(states)]:
        column.justify = "right"
    for status in statuses:
        table.add_row(Text(status.root.name), *(str(status.counts[state]) for state in states), status.summary)
    return Group(Text(f"{root}\n{counted(len(statuses), 'run')}"), table)


def _running_table(running: Sequence[RunningClip]) -> Table:
    table = _table("host", "pid", "clip", "attempt", "age", "last activity")
    for clip in running:
        attempt = "as configured" if clip.rung == 1 else f"rung {clip.rung}, frame_interval {clip.frame_interval}"
        age, silent = (timedelta(seconds=round(value)) for value in (clip.seconds, clip.silent_seconds))
        table.add_row(clip.host, str(clip.pid), Text(printable(clip.clip_id)), attempt, str(age), f"{silent} ago")
    return table


def _describe_failures(root: Path, failed: Sequence[FailedClip]) -> list[RenderableType]:
    """Per error class, how to retry its clips; and a table of the clips, with log files relative to the run folder."""
    by_kind: dict[str, list[FailedClip]] = defaultdict(list)
    for clip in failed:
        by_kind[clip.kind].append(clip)
    lines = []
    table = _table("class", "clip", "message", "log")
    for kind, clips in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        hidden = f"; {_MAX_FAILURES} shown, the others are in failures/" if len(clips) > _MAX_FAILURES else ""
        lines.append(f"{len(clips)} failed with {kind}: {next_step(kind)}{hidden}")
        for clip in clips[:_MAX_FAILURES]:
            message = clip.message.splitlines()[0] if clip.message else ""
            table.add_row(kind, Text(printable(clip.clip_id)), Text(message), Text(_relative(clip.log, root)))
    return [Text("\n".join(lines)), table]


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _relative(path: str, root: Path) -> str:
    """A path relative to the run folder, if it is below it."""
    absolute = Path(path).absolute()
    return str(absolute.relative_to(root.absolute())) if absolute.is_relative_to(root.absolute()) else path


class _Watched:
    """The runs whose status the command shows: one run, or all runs of a sweep.

    Args:
        root: a run folder, or a sweep folder, which has run folders below it.
    Raises:
        ConfigError: neither.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        runs = [] if is_run(root) else runs_below(root)
        self._is_sweep = bool(runs)
        self._readers = [StatusReader(RunPaths(folder)) for folder in runs or [root]]

    def read(self) -> tuple[RenderableType, int]:
        """The status to print, and the number of clips that are left."""
        statuses = [reader.read() for reader in self._readers]
        shown = describe_sweep(self._root, statuses) if self._is_sweep else describe(statuses[0])
        return shown, sum(status.num_left for status in statuses)


def _print_status(watched: _Watched, console: Console, *, watch: bool) -> None:
    shown, num_left = watched.read()
    if not (watch and console.is_terminal):
        console.print(shown)
        while watch and num_left:
            time.sleep(_REFRESH_SECONDS)
            shown, num_left = watched.read()
            console.print(shown)
        return
    with Live(shown, console=console, auto_refresh=False) as live:
        while num_left:
            time.sleep(_REFRESH_SECONDS)
            shown, num_left = watched.read()
            live.update(shown, refresh=True)


@prints_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = CommandParser(prog="python -m aot.status", description="Show the progress of a run or a sweep.")
    add_run_argument(parser, help="a run folder, or a sweep folder")
    parser.add_argument(
        "--watch", action="store_true", help=f"refresh every {_REFRESH_SECONDS:g} s until no clip is left"
    )
    options = parser.parse_args(arguments)
    try:
        _print_status(_Watched(options.run), output_console(), watch=options.watch)
    except KeyboardInterrupt:  # the usual way to end --watch; without the message of run_command
        return EXIT_INTERRUPTED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(run_command(main))
