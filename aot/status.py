"""How far is a run? Told from its folder alone, wherever its workers are.

python -m aot.status RUN            counts, rate, time left, who is at work, what failed and where to read why
python -m aot.status RUN --watch    the same again and again, until nothing is left
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from aot.errors import AotError
from aot.launching.slurm.squeue import ENDED, task_states
from aot.launching.slurm.submissions import read_submissions
from aot.paths import RunPaths
from aot.runs.failure import CANCELLED, read_failure
from aot.runs.history import is_running
from aot.runs.ledger import LedgerTail, silent_seconds
from aot.runs.run_json import read_run_json
from aot.system.cli import EXIT_INTERRUPTED, run_command

EXIT_SHOWN, EXIT_WRONG = 0, 2

_REFRESH_SECONDS = 5.0
# squeue is asked for less often than the run folder, which asks nobody else.
_SQUEUE_SECONDS = 60.0
# The rate is that of the last minutes: workers come and go.
_RATE_SECONDS = 600.0
_MAX_FAILURES = 20
_FILE_WIDTH = 120


@dataclass(frozen=True)
class Running:
    """A worker with a clip in hand."""

    worker: str
    host: str
    pid: int
    clip_id: str
    rung: int
    frame_interval: int
    seconds: float
    """Since it began this attempt."""
    silent_seconds: float
    """Since its ledger was last written or touched."""


@dataclass(frozen=True)
class Failed:
    """A clip that failed, wholly or in part."""

    clip_id: str
    kind: str
    message: str
    log: str


@dataclass(frozen=True)
class Status:
    """A run at one moment."""

    root: Path
    counts: Counter[str]
    """Clips that are done, partial, failed, running and pending."""
    running: list[Running]
    failed: list[Failed]
    clips_per_minute: float
    frames_per_second: float
    tasks: Counter[str] = field(default_factory=Counter)
    """States of the scheduler's tasks that are still there."""

    @property
    def num_left(self) -> int:
        return self.counts["running"] + self.counts["pending"]

    @property
    def seconds_left(self) -> float | None:
        """By the rate of the last minutes; None where nothing gets on."""
        return 60 * self.num_left / self.clips_per_minute if self.clips_per_minute and self.running else None


class StatusReader:
    """Reads a run folder's ledgers once, and from then on what is new in them.

    Args:
        paths: of the run folder.
    Raises:
        ConfigError: it is no run folder.
    """

    def __init__(self, paths: RunPaths) -> None:
        self._clip_ids = list(read_run_json(paths)["clips"])
        self._paths = paths
        self._tail = LedgerTail(paths)
        self._open: dict[tuple[str, str], dict[str, Any]] = {}
        self._partial: set[str] = set()
        self._done: list[tuple[float, int]] = []
        self._first_start: float | None = None
        self._tasks: Counter[str] = Counter()
        self._next_squeue = 0.0

    def read(self) -> Status:
        for event in self._tail.new_events():
            self._take(event)
        now = time.time()
        running = [self._running(event, now) for event in self._open.values() if is_running(self._paths, event)]
        counts, failed = self._count({each.clip_id for each in running})
        clips_per_minute, frames_per_second = self._rates(now)
        if time.monotonic() >= self._next_squeue:
            self._next_squeue = time.monotonic() + _SQUEUE_SECONDS
            self._tasks = self._living_tasks()
        running.sort(key=lambda each: each.worker)
        return Status(self._paths.root, counts, running, failed, clips_per_minute, frames_per_second, self._tasks)

    def _take(self, event: dict[str, Any]) -> None:
        key = (event.get("clip_id", ""), event["worker"])
        if event["event"] == "started":
            self._open[key] = event
            self._first_start = self._first_start or _seconds(event)
        elif event["event"] == "done":
            self._done.append((_seconds(event), event["summary"]["num_frames"]))
            (self._partial.add if event["summary"]["object_errors"] else self._partial.discard)(event["clip_id"])
        else:
            self._open.pop(key, None)

    def _count(self, running: set[str]) -> tuple[Counter[str], list[Failed]]:
        whole = _names_below(self._paths.results, ".h5")
        failures = _names_below(self._paths.failures, ".json")
        counts: Counter[str] = Counter()
        failed = []
        for clip_id in self._clip_ids:
            if clip_id in running:
                counts["running"] += 1
            elif clip_id in failures and (record := read_failure(self._paths.clip(clip_id))):
                counts["partial" if clip_id in whole else "failed"] += 1
                message, log = str(record.get("message", "")), str(record.get("log", ""))
                failed.append(Failed(clip_id, record["class"], message, log))
            elif clip_id in whole:
                counts["partial" if clip_id in self._partial else "done"] += 1
            else:
                counts["pending"] += 1
        return counts, failed

    def _rates(self, now: float) -> tuple[float, float]:
        """Clips a minute and frames a second, over the last minutes."""
        begun = max(now - _RATE_SECONDS, self._first_start or now)
        self._done = [(at, num_frames) for at, num_frames in self._done if at >= now - _RATE_SECONDS]
        seconds = max(1.0, now - begun)
        return 60 * len(self._done) / seconds, sum(num_frames for _, num_frames in self._done) / seconds

    def _running(self, event: dict[str, Any], now: float) -> Running:
        return Running(
            worker=event["worker"],
            host=event["host"],
            pid=event["pid"],
            clip_id=event["clip_id"],
            rung=event["rung"],
            frame_interval=event["frame_interval"],
            seconds=max(0.0, now - _seconds(event)),
            silent_seconds=silent_seconds(self._paths, event["worker"]),
        )

    def _living_tasks(self) -> Counter[str]:
        states = task_states(task for each in read_submissions(self._paths) for task in each.tasks) or {}
        return Counter(state for state in states.values() if state not in ENDED)


def describe(status: Status) -> Group:
    """A status for people."""
    total = status.counts.total()
    parts = [f"{status.counts[state]} {state}" for state in ("done", "partial", "failed", "running", "pending")]
    lines = [str(status.root), f"{total} clips: {', '.join(part for part in parts if not part.startswith('0 '))}"]
    rate = f"{status.clips_per_minute:.1f} clips/min, {status.frames_per_second:.1f} frames/s"
    if status.seconds_left is not None:
        lines.append(f"{rate}; about {timedelta(seconds=round(status.seconds_left))} left")
    elif status.running:
        lines.append(f"{rate}; time left: not known before the first clip is done")
    elif status.num_left and not status.tasks:
        lines.append("nobody is at work on it; the command that began it goes on with what is missing")
    if status.tasks:
        lines.append("SLURM tasks: " + ", ".join(f"{count} {state.lower()}" for state, count in status.tasks.items()))
    shown: list[Any] = [Text("\n".join(lines))]
    if status.running:
        shown.append(_running_table(status.running))
    if status.failed:
        shown.append(Text("\n".join(_describe_failures(status.failed))))
    return Group(*shown)


def _running_table(running: Sequence[Running]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("host", "pid", "clip", "attempt", "age", "last sign of life"):
        table.add_column(heading, overflow="fold")
    for each in running:
        attempt = "as configured" if each.rung == 1 else f"rung {each.rung}, frame_interval {each.frame_interval}"
        age, silent = (timedelta(seconds=round(value)) for value in (each.seconds, each.silent_seconds))
        table.add_row(each.host, str(each.pid), Text(each.clip_id), attempt, str(age), f"{silent} ago")
    return table


def _describe_failures(failed: Sequence[Failed]) -> list[str]:
    by_kind: dict[str, list[Failed]] = defaultdict(list)
    for each in failed:
        by_kind[each.kind].append(each)
    lines = []
    for kind, clips in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        again = "the same command takes them" if kind == CANCELLED else f"take them with 'retry=[{kind}]'"
        lines.append(f"{len(clips)} failed with {kind}; {again} again")
        for each in clips[:_MAX_FAILURES]:
            reason = each.message.splitlines()[0] if each.message else ""
            lines += [f"  {each.clip_id}: {reason}", f"    {each.log}"]
        if len(clips) > _MAX_FAILURES:
            lines.append(f"  … and {len(clips) - _MAX_FAILURES} more in failures/")
    return lines


def _names_below(folder: Path, suffix: str) -> set[str]:
    return {path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob(f"*{suffix}")}


def _seconds(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).astimezone(timezone.utc).timestamp()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m aot.status", description="How far is a run?")
    parser.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    parser.add_argument(
        "--watch", action="store_true", help=f"again every {_REFRESH_SECONDS:g} s, until nothing is left"
    )
    given = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH, soft_wrap=True)
    try:
        reader = StatusReader(RunPaths(given.run))
        status = reader.read()
        if not (given.watch and console.is_terminal):
            console.print(describe(status))
            while given.watch and status.num_left:
                time.sleep(_REFRESH_SECONDS)
                status = reader.read()
                console.print(describe(status))
            return EXIT_SHOWN
        with Live(describe(status), auto_refresh=False) as live:
            while status.num_left:
                time.sleep(_REFRESH_SECONDS)
                status = reader.read()
                live.update(describe(status), refresh=True)
        return EXIT_SHOWN
    except AotError as error:
        print(error, file=sys.stderr)
        return EXIT_WRONG
    except KeyboardInterrupt:  # the way in which a watch ends
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(run_command(main))
