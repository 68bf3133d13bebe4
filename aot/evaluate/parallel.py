"""Apply a function to many items in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

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
    """
    workers = min(workers or os.cpu_count() or 1, len(items))
    if workers <= 1:
        yield from map(function, items)
        return
    # Spawned, not forked: HDF5 and OpenCV run threads, which a fork would leave in an undefined state.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_use_one_thread) as pool:
        yield from pool.map(function, items)


def _use_one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)
