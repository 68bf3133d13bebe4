"""What has been tried for a clip since its last result or failure, told from the ledgers.

An attempt that began and of whose end no ledger tells was lost with its process; thus it counts even where everything
died with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from aot.paths import RunPaths
from aot.retry import LOST, Attempt
from aot.runs.ledger import SILENT_SECONDS, Ledger, read_events, silent_seconds
from aot.system.processes import host, is_alive

IsForgotten = Callable[[str, str, str], bool]
"""Whether an attempt counts no more, by its clip's id, how it ended (class), and when (UTC, ISO 8601)."""

_KINDS = ("started", "attempt failed", "died", "interrupted", "done", "ended")


@dataclass
class History:
    """What the ledgers tell of some clips."""

    series: dict[str, list[Attempt]] = field(default_factory=dict)
    """Attempts of each clip that ended badly since its last result or failure, oldest first."""
    open: list[dict[str, Any]] = field(default_factory=list)
    """The "started" events of attempts without an end: they run, or died with whoever watched them."""
    tasks: set[str] = field(default_factory=set)
    """The scheduler's tasks that have begun any clip."""


def _nothing_is_forgotten(clip_id: str, kind: str, at: str) -> bool:
    return False


def read_history(
    paths: RunPaths, contents: Mapping[str, str], is_forgotten: IsForgotten = _nothing_is_forgotten
) -> History:
    """Replay the ledgers.

    Args:
        paths: of the run.
        contents: the clips to look for and their contents' digests; what was tried with another content is forgotten.
        is_forgotten: what else is.
    """
    history = History()
    running: dict[tuple[str, str], dict[str, Any]] = {}
    for event in read_events(paths, _KINDS, contents):
        clip_id = event["clip_id"]
        begun = running.pop((clip_id, event["worker"]), None)
        if event["event"] == "started":
            running[clip_id, event["worker"]] = event
            history.tasks |= {event["task"]} if "task" in event else set()
        elif event["event"] in ("done", "ended"):
            history.series.pop(clip_id, None)
        elif begun is not None and begun.get("content") == contents[clip_id]:
            attempt = _ended(begun, event)
            if attempt is not None and not is_forgotten(clip_id, str(attempt.kind), event["at"]):
                history.series.setdefault(clip_id, []).append(attempt)
    history.open = [event for event in running.values() if event.get("content") == contents[event["clip_id"]]]
    return history


def attempts_so_far(
    paths: RunPaths,
    contents: Mapping[str, str],
    *,
    is_forgotten: IsForgotten = _nothing_is_forgotten,
    task: str | None = None,
) -> dict[str, tuple[Attempt, ...]]:
    """Attempts of clips that are neither done nor failed since, those that died with their watchers included.

    Args:
        paths, contents: see `read_history`.
        is_forgotten: which attempts the user wants to be made again.
        task: the scheduler's task that asks; what an earlier start of the same task left open was lost with it.
    """
    history = read_history(paths, contents, is_forgotten)
    for begun in history.open:
        if is_forgotten(begun["clip_id"], LOST, begun["at"]):
            continue
        if (task is not None and begun.get("task") == task) or not is_running(paths, begun):
            lost = {"class": LOST, "error": f"nothing is known of its end; it ran on {begun['host']}"}
            history.series.setdefault(begun["clip_id"], []).append(Attempt.from_json(begun | lost))
    return {clip_id: tuple(attempts) for clip_id, attempts in history.series.items()}


def close_cancelled(paths: RunPaths, history: History, tasks: Collection[str]) -> None:
    """Note that the attempts of tasks that someone has cancelled are over; they count for nothing.

    Raises:
        WriteError: the run folder cannot be written.
    """
    for begun in history.open:
        if begun.get("task") in tasks:
            # In the ledger of its worker, which is no more.
            ledger = Ledger(paths.ledger(begun["worker"]), task=begun["task"])
            ledger.append("interrupted", clip_id=begun["clip_id"], reason="its task was cancelled", is_counted=False)


def is_running(paths: RunPaths, started: dict[str, Any]) -> bool:
    """Whether the worker of an attempt that has no end yet is still alive, as far as can be told from here."""
    if started["host"] == host():
        return is_alive(started["pid"])
    return silent_seconds(paths, started["worker"]) <= SILENT_SECONDS


def _ended(started: dict[str, Any], end: dict[str, Any]) -> Attempt | None:
    """The attempt that began and ended so; None where its end says nothing about the clip."""
    if end["event"] == "interrupted":
        if not end.get("is_counted"):
            return None
        end = {"class": LOST, "error": end["reason"]}
    return Attempt.from_json(started | {"class": end["class"], "error": end["error"]})
