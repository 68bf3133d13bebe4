"""One clip after another, in this process."""

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
    """Runs the clips here, so that a debugger works."""

    divides_work = False

    def launch(self, plan: Plan, todo: Sequence[ClipTask]) -> Wait:
        return partial(_run, plan, todo)

    def preview(self, plan: Plan, todo: Sequence[ClipTask]) -> Preview:
        return Preview([[each.clip.clip_id for each in todo]], workers_at_once=1, available_bytes=None)


def _run(plan: Plan, todo: Sequence[ClipTask]) -> None:
    with Display(len(todo)) as display:
        worker = Worker(plan.context, on_event=display.hear)
        try:
            for each in todo:
                try:
                    worker.run(each, partial(display.advance, each.clip.clip_id))
                except KeyboardInterrupt:
                    worker.interrupted(each)
                    raise
        except BrokenProcess as broken:
            raise AotError(f"{broken}; launcher=local goes on in a new process where this one cannot") from broken
        finally:
            worker.close()
