"""Progress of a run on the terminal: one live bar for all workers; where there is no terminal, one line per clip."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from aot.errors import printable

_MAX_ID_LENGTH = 28


class Display:
    """Shows the events of the workers; use it as a context manager.

    Args:
        num_clips: how many clips the run processes.
        seconds_before: time for which clips have been processed before their events are shown, in s.
    """

    def __init__(self, num_clips: int, *, seconds_before: float = 0.0) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._is_live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.fields[now]}", style="bold"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips · {task.fields[rate]} · left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._is_live,
        )
        self._task: TaskID = self._progress.add_task("", total=num_clips, now="", rate="")
        self._running: dict[str, str] = {}
        self._num_done = 0
        self._num_frames = 0
        self._started = time.perf_counter() - seconds_before

    def show_event(self, event: Mapping[str, Any]) -> None:
        """Update the display after an event of a ledger: a clip has started or ended."""
        if event["event"] == "started":
            self._running[event["clip_id"]] = ""
        elif event["event"] == "done":
            self._running.pop(event["clip_id"], None)
            self._num_frames += event["summary"]["num_frames"]
        elif event["event"] in ("interrupted", "died"):
            self._running.pop(event["clip_id"], None)
        elif event["event"] == "ended":
            self._running.pop(event["clip_id"], None)
            self._count(event["clip_id"], event["state"], event.get("message", ""))
        self._show()

    def show_progress(self, clip_id: str, stage: str, fraction: float) -> None:
        """Update the progress of a running clip."""
        self._running[clip_id] = f" · {stage} {fraction:4.0%}"
        self._show()

    def print_line(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def _count(self, clip_id: str, state: str, message: str) -> None:
        self._num_done += 1
        rate = f"{self._num_frames / (time.perf_counter() - self._started):.1f} frames/s"
        self._progress.update(self._task, completed=self._num_done, rate=rate)
        if message or not self._is_live:
            self.print_line(f"{printable(clip_id)}: {state} · {_problem(message) if message else rate}")

    def _show(self) -> None:
        clip_id, progress = next(iter(self._running.items()), ("", ""))
        now = _shorten(clip_id) + progress
        if len(self._running) > 1:
            now = f"{len(self._running)} workers · {now}"
        self._progress.update(self._task, now=now)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _problem(message: str) -> str:
    """What failed, without what to do next: the summary at the end prints the complete message."""
    return message.splitlines()[0].split("; ", 1)[0]


def _shorten(clip_id: str) -> str:
    shown = printable(clip_id)
    return shown if len(shown) <= _MAX_ID_LENGTH else "…" + shown[-_MAX_ID_LENGTH + 1 :]
