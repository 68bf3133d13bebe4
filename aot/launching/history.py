"""What has been tried for a clip since its last result or failure, told from the ledgers.

An attempt that began and of whose end no ledger tells was lost with its process; thus it counts even where everything
died with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aot.launching.ledger import SILENT_SECONDS, host, read_events, silent_seconds
from aot.paths import RunPaths, is_alive
from aot.retry import LOST, Attempt

_KINDS = ("started", "attempt failed", "died", "interrupted", "done", "ended", "cancelled")


def attempts_so_far(
    paths: RunPaths, contents: Mapping[str, str], *, task: str | None = None
) -> dict[str, tuple[Attempt, ...]]:
    """Attempts of clips that are neither done nor failed since, oldest first.

    Args:
        paths: of the run.
        contents: the clips to look for and their contents' digests; what was tried with another content is forgotten.
        task: the scheduler's task that asks; what an earlier start of the same task left open was lost with it.
    """
    series: dict[str, list[Attempt]] = {}
    running: dict[tuple[str, str], dict[str, Any]] = {}
    for event in read_events(paths, _KINDS, contents):
        if event["event"] == "cancelled":
            running = {key: started for key, started in running.items() if key[0] not in event["clip_ids"]}
            continue
        clip_id, worker = event["clip_id"], event["worker"]
        if clip_id not in contents:
            continue
        before = running.pop((clip_id, worker), None)
        if event["event"] == "started":
            # The worker's next attempt at the same clip, without an end of the one before: a twin, or a lost line.
            running[clip_id, worker] = event
        elif event["event"] in ("done", "ended"):
            series.pop(clip_id, None)
        elif before is not None and before.get("content") == contents[clip_id]:
            attempt = _ended(before, event)
            series.setdefault(clip_id, []).extend([attempt] if attempt else [])
    for (clip_id, _), started in running.items():
        is_ours = task is not None and started.get("task") == task
        if started.get("content") == contents[clip_id] and (is_ours or not is_running(paths, started)):
            lost = {"class": LOST, "error": f"nothing is known of its end; it ran on {started['host']}"}
            series.setdefault(clip_id, []).append(Attempt.from_json(started | lost))
    return {clip_id: tuple(attempts) for clip_id, attempts in series.items()}


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
