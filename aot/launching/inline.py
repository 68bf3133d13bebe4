"""The launcher that processes one clip after another in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from aot.errors import AotError, RunDeleted
from aot.launching.base import Preview, Wait
from aot.launching.display import Display
from aot.launching.plan import Plan
from aot.launching.worker import BrokenProcess, Worker
from aot.runs.claims import Claims
from aot.runs.ledger import TOUCH_SECONDS
from aot.runs.ledger_files import end_ledgers
from aot.runs.parts import PartSweeper
from aot.runs.task import ClipTask


class InlineLauncher:
    """Processes the clips in this process, so that a debugger works.

    Args:
        strict: whether clips that were computed with a larger frame_interval than requested make the exit code 1.
    """

    divides_work = False

    def __init__(self, strict: bool = False) -> None:
        self.is_strict = strict

    def launch(self, plan: Plan, tasks: Sequence[ClipTask]) -> Wait:
        return partial(_run, plan, tasks)

    def preview(self, plan: Plan, tasks: Sequence[ClipTask]) -> Preview:
        return Preview([[task.clip.clip_id for task in tasks]], max_workers=1, available_bytes=None)


def _run(plan: Plan, tasks: Sequence[ClipTask]) -> None:
    parts = PartSweeper(plan.paths)
    with Display(len(tasks)) as display:
        worker, claims = Worker(plan.context, on_event=display.show_event), Claims(plan.paths)
        try:
            with _touching_ledger(worker):
                for task, following in zip(tasks, [*tasks[1:], None]):
                    # Only for others to see: a debugger wants every clip computed here.
                    claims.take(task.clip.clip_id, worker.name)
                    try:
                        worker.run(task, partial(display.show_progress, task.clip.clip_id), following)
                    except KeyboardInterrupt:
                        worker.record_interruption(task)
                        raise
                    finally:
                        claims.release(task.clip.clip_id)
        except BrokenProcess as broken:
            raise AotError(f"{broken}; launcher=local replaces such a process and continues") from broken
        else:
            end_ledgers(plan.paths, [worker.name])
        finally:
            worker.close()
    parts.sweep_other_machines()


@contextmanager
def _touching_ledger(worker: Worker) -> Iterator[None]:
    """Touch the worker's ledger while the block runs, by which commands on other machines see that it is alive."""
    is_over = threading.Event()

    def touch() -> None:
        while not is_over.wait(TOUCH_SECONDS):
            with suppress(RunDeleted):  # the worker notices it when it writes its next event
                worker.touch_ledger()

    thread = threading.Thread(target=touch, daemon=True, name="ledger")
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
