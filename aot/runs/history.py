"""The attempts at a clip since its last result or failure, read from the ledgers.

An attempt that has started, and whose end no ledger records, was lost with its process. It counts, even if nothing was
left to record its end. Attempts at drawing a complete result are not counted here: they say nothing about computing it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aot.paths import RunPaths
from aot.retry import LOST, Attempt
from aot.runs.ledger import SILENT_SECONDS, Ledger, read_events, silent_seconds
from aot.runs.ledger_files import LedgerFile
from aot.runs.liveness import LedgerWatch
from aot.runs.task import Work
from aot.system.processes import host, is_alive

_KINDS = (
    "started", "reading ahead", "read ahead", "attempt failed", "died", "interrupted", "retry requested",
    "redo requested", "done", "ended",
)  # fmt: skip


@dataclass
class History:
    """The attempts at some clips, according to the ledgers."""

    series: dict[str, list[Attempt]] = field(default_factory=dict)
    """Clip id → failed attempts since its last result or failure, oldest first."""
    open: list[dict[str, Any]] = field(default_factory=list)
    """The "started" events of attempts without an end: they are running, or died with their supervisor."""
    excused: set[tuple[str, str]] = field(default_factory=set)
    """Clip id and worker of open attempts that do not count, because a retry of the clip was requested since."""
    latest: dict[str, str] = field(default_factory=dict)
    """Clip id → time of its latest event, as in `event["at"]`."""
    interrupted: list[dict[str, Any]] = field(default_factory=list)
    """The "started" events of interrupted attempts that do not count, each the last one of its worker at its clip."""
    scheduler_tasks: set[str] = field(default_factory=set)
    """The scheduler's tasks that have started at least one clip."""
    stopped_tasks: set[str] = field(default_factory=set)
    """The scheduler's tasks that the scheduler has ended before their clips were done, by a signal."""
    computed: dict[str, set[str]] = field(default_factory=dict)
    """Worker → ids of the clips that it has computed, or tried to."""

    def had_all_time_of_worker(self, started: dict[str, Any]) -> bool:
        """Whether a clip that was computed had all the time of its worker.

        Args:
            started: the event of its attempt.
        """
        return self.computed.get(started["worker"]) == {started["clip_id"]}


def read_history(
    paths: RunPaths,
    digests: Mapping[str, str],
    *,
    files: Sequence[LedgerFile] | None = None,
    earlier: Mapping[str, Sequence[Attempt]] | None = None,
) -> History:
    """Replay the ledgers.

    Args:
        paths: of the run.
        digests: clip id → digest of its fingerprint, of the clips to look for; attempts with another digest are
            ignored.
        files: the ledgers; None: all.
        earlier: clip id → failed attempts before the events of these ledgers; None: there were none.
    """
    history = History({clip_id: list(attempts) for clip_id, attempts in (earlier or {}).items() if attempts})
    running: dict[tuple[str, str], dict[str, Any]] = {}
    reading: dict[tuple[str, str], dict[str, Any]] = {}
    interrupted: dict[tuple[str, str], dict[str, Any]] = {}
    for event in read_events(paths, _KINDS, digests, files=files):
        clip_id, key = event["clip_id"], (event["clip_id"], event["worker"])
        history.latest[clip_id] = event["at"]
        if event["event"] == "reading ahead":
            reading[key] = event
        if event["event"] in ("reading ahead", "read ahead"):
            continue
        if event.get("by_scheduler") and "task" in event:
            history.stopped_tasks.add(event["task"])
        was_read = reading.pop(key, None)
        history.excused.discard(key)
        was_interrupted = interrupted.pop(key, None)
        started = running.pop(key, None)
        if event["event"] == "died":  # it may have died of reading the clip ahead, or have been interrupted before
            started = started or was_interrupted or was_read
        if event["event"] == "started":
            running[key] = event
            history.scheduler_tasks |= {event["task"]} if "task" in event else set()
            if _computes(event):
                history.computed.setdefault(event["worker"], set()).add(clip_id)
        elif event["event"] in ("done", "ended"):
            history.series.pop(clip_id, None)
        elif event["event"] in ("retry requested", "redo requested"):
            history.series.pop(clip_id, None)
            history.excused |= {(other, worker) for other, worker in running if other == clip_id}
        elif started is not None and _computes(started) and started.get("content") == digests[clip_id]:
            attempt = _ended(started, event)
            if attempt is None:
                interrupted[key] = started
            if attempt is not None:
                history.series.setdefault(clip_id, []).append(attempt)
    history.open = [event for event in running.values() if event.get("content") == digests[event["clip_id"]]]
    history.interrupted = list(interrupted.values())
    return history


def history_so_far(
    paths: RunPaths,
    digests: Mapping[str, str],
    *,
    scheduler_task: str | None = None,
    files: Sequence[LedgerFile] | None = None,
    earlier: Mapping[str, Sequence[Attempt]] | None = None,
) -> History:
    """The history, with the open attempts that died with their supervisor in `series`.

    Args:
        paths, digests, files, earlier: see `read_history`.
        scheduler_task: the scheduler's task of the caller; attempts that an earlier start of the same task left open
            were lost with it.
    """
    history = read_history(paths, digests, files=files, earlier=earlier)
    for started in filter(_computes, history.open):
        if (started["clip_id"], started["worker"]) in history.excused:
            continue
        if (scheduler_task is not None and started.get("task") == scheduler_task) or not is_running(paths, started):
            lost = {"class": LOST, "error": f"its end is not recorded; it ran on {started['host']}"}
            history.series.setdefault(started["clip_id"], []).append(Attempt.from_json(started | lost))
    return history


def close_cancelled(paths: RunPaths, history: History, tasks: Collection[str]) -> None:
    """Record the end of the attempts of cancelled tasks; they do not count.

    Args:
        paths: of the run.
        history: of the run.
        tasks: the scheduler's tasks that were cancelled.
    Raises:
        WriteError: the run folder cannot be written.
    """
    for started in history.open:
        if started.get("task") in tasks:
            ledger_of(paths, started).append(
                "interrupted", clip_id=started["clip_id"], reason="its task was cancelled", is_counted=False
            )


def ledger_of(paths: RunPaths, started: dict[str, Any]) -> Ledger:
    """The ledger of a worker that does not run any more, to record the end of its attempt there.

    Args:
        paths: of the run.
        started: the event of its attempt.
    """
    ledger = Ledger(paths, started["worker"], scheduler_task=started["task"])
    ledger.follow(started["at"])
    return ledger


def is_running(paths: RunPaths, started: dict[str, Any], ledgers: LedgerWatch | None = None) -> bool:
    """Whether the worker of an attempt is alive: by its process on this machine, by its ledger elsewhere.

    Args:
        paths: of the run.
        started: the event of the attempt.
        ledgers: has watched them. Without it, or before it has watched for long enough, the answer is a guess from the
            time stamp of the ledger, which is wrong if clocks differ by minutes. Nothing is deleted because of it, and
            it only decides whether an attempt counts as lost.
    """
    if started["host"] == host():
        return is_alive(started["pid"])
    is_silent = ledgers.is_silent(started["worker"]) if ledgers else None
    if is_silent is None:
        # A stamp of the future says nothing about the present: it may have been written by a dead worker, too.
        is_silent = abs(silent_seconds(paths, started["worker"])) > SILENT_SECONDS
    return not is_silent


def _computes(started: dict[str, Any]) -> bool:
    return bool(started.get("work") != Work.OVERLAY.value)


def _ended(started: dict[str, Any], end: dict[str, Any]) -> Attempt | None:
    """The attempt with this start and end; None if it does not count."""
    if end["event"] == "interrupted":
        if not end.get("is_counted"):
            return None
        end = {"class": LOST, "error": end["reason"]}
    return Attempt.from_json(started | {"class": end["class"], "error": end["error"]})
