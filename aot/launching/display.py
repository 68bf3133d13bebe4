"""What a run shows of itself while it goes: one live bar for all workers on a terminal, elsewhere one line a clip."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from aot.launching.outcome import Outcome

_LONGEST_ID = 28


class Display:
    """Is told what the workers do; a context."""

    def __init__(self, num_clips: int) -> None:
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
        self._started = time.perf_counter()

    def begin(self, worker: str, clip_id: str) -> None:
        """A worker takes a clip."""
        self._running[worker] = _shorten(clip_id)
        self._show()

    def advance(self, worker: str, clip_id: str, stage: str, share: float) -> None:
        """A worker has got so far with it."""
        self._running[worker] = f"{_shorten(clip_id)} · {stage} {share:4.0%}"
        self._show()

    def leave(self, worker: str) -> None:
        """A worker has nothing in hand."""
        self._running.pop(worker, None)
        self._show()

    def end(self, worker: str, outcome: Outcome) -> None:
        """A clip needs nothing more."""
        message = outcome.failure["message"] if outcome.failure else ""
        self.count(
            worker, outcome.clip_id, outcome.state, message, outcome.summary.num_frames if outcome.summary else 0
        )

    def count(self, worker: str, clip_id: str, state: str, message: str = "", num_frames: int = 0) -> None:
        """A clip needs nothing more; likewise, for those who know it from a ledger."""
        self._running.pop(worker, None)
        self._num_done += 1
        self._num_frames += num_frames
        rate = f"{self._num_frames / (time.perf_counter() - self._started):.1f} frames/s"
        self._progress.update(self._task, completed=self._num_done, rate=rate)
        self._show()
        if message or not self._is_live:
            self.say(f"{clip_id}: {state} · {message.splitlines()[0] if message else rate}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def _show(self) -> None:
        if len(self._running) > 1:
            now = f"{len(self._running)} workers · {next(iter(self._running.values()))}"
        else:
            now = next(iter(self._running.values()), "")
        self._progress.update(self._task, now=now)

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _shorten(clip_id: str) -> str:
    return clip_id if len(clip_id) <= _LONGEST_ID else "…" + clip_id[-_LONGEST_ID + 1 :]
