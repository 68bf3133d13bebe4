"""The launcher that processes one clip after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from aot.errors import AotError
from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.worker import BrokenProcess, Worker
from aot.runs.task import ClipTask


class InlineLauncher:
    """Processes the clips in this process, so that a debugger works."""

    divides_work = False

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Wait:
        return partial(_run, plan, tasks)

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        return Preview([[task.clip.clip_id for task in tasks]], max_workers=1, available_bytes=None)


def _run(plan: Plan, tasks: Sequence[ClipTask]) -> None:
    with Display(len(tasks)) as display:
        worker = Worker(plan.context, on_event=display.show_event)
        try:
            for task in tasks:
                try:
                    worker.run(task, partial(display.show_progress, task.clip.clip_id))
                except KeyboardInterrupt:
                    worker.record_interruption(task)
                    raise
        except BrokenProcess as broken:
            raise AotError(f"{broken}; launcher=local replaces such a process and continues") from broken
        finally:
            worker.close()
