"""One clip after another, in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from aot.launching.plan import Plan, Work
from aot.launching.worker import Outcome, Worker
from aot.types import Clip


class InlineLauncher:
    """Runs the clips here, so that a debugger works."""

    def launch(self, plan: Plan, todo: Sequence[tuple[Clip, Work]]) -> list[Outcome]:
        worker = Worker(plan)
        try:
            with _Display(len(todo)) as display:
                outcomes = []
                for clip, work in todo:
                    display.begin(clip.clip_id)
                    outcome = worker.run(clip, work, display.advance)
                    display.end(outcome)
                    outcomes.append(outcome)
                return outcomes
        finally:
            worker.close()


class _Display:
    """A live bar on a terminal; elsewhere one line a clip."""

    def __init__(self, num_clips: int) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        self._is_live = self._console.is_terminal
        self._progress = Progress(
            TextColumn("{task.fields[clip_id]}", style="bold"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("clips · {task.fields[rate]} · {task.fields[stage]} · left"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            disable=not self._is_live,
        )
        self._task: TaskID = self._progress.add_task("", total=num_clips, clip_id="", rate="", stage="")
        self._num_done = 0
        self._num_frames = 0
        self._started = time.perf_counter()

    def begin(self, clip_id: str) -> None:
        self._progress.update(self._task, clip_id=_shorten(clip_id), stage="opening")

    def advance(self, stage: str, share: float) -> None:
        self._progress.update(self._task, stage=f"{stage} {share:4.0%}")

    def end(self, outcome: Outcome) -> None:
        self._num_done += 1
        if outcome.summary:
            self._num_frames += outcome.summary.num_frames
        rate = f"{self._num_frames / (time.perf_counter() - self._started):.1f} frames/s"
        self._progress.update(self._task, completed=self._num_done, rate=rate)
        if outcome.failure or not self._is_live:
            detail = _first_line(outcome.failure["message"]) if outcome.failure else rate
            self._console.print(f"{outcome.clip_id}: {outcome.state} · {detail}", markup=False, highlight=False)

    def __enter__(self) -> _Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _shorten(clip_id: str, longest: int = 28) -> str:
    return clip_id if len(clip_id) <= longest else "…" + clip_id[-longest + 1 :]


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""
