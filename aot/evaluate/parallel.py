"""Apply a function to many items in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from aot.errors import OutOfMemory
from aot.system.interrupts import interrupts_blocked
from aot.system.processes import die_with

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_processes(
    function: Callable[[_Item], _Result], items: Sequence[_Item], workers: int | None
) -> Iterator[_Result]:
    """Apply a function to items; results come in the order of the items.

    Args:
        function: defined at module level, so that it can be pickled.
        items: picklable.
        workers: number of processes; None: one per core. 1: this process.
    Raises:
        OutOfMemory: a process was killed.
        KeyboardInterrupt: or an error of the function; no process is left.
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    others = set(multiprocessing.active_children())
    # Spawned, not forked: HDF5 and OpenCV run threads, which a fork would leave in an undefined state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_prepare_worker, initargs=(os.getpid(),)) as pool:
        with interrupts_blocked():  # `map` starts the processes
            results = pool.map(function, items)
        try:
            yield from results
        except BaseException as error:
            # Without this, the executor would wait for the items that its processes have begun.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()
            if isinstance(error, BrokenProcessPool):
                raise OutOfMemory(
                    f"one of {workers} processes was killed, probably because memory ran out; use fewer --workers"
                ) from error
            raise


def _prepare_worker(parent: int) -> None:
    import cv2

    die_with(parent)  # otherwise it would wait for further items forever
    cv2.setNumThreads(1)
