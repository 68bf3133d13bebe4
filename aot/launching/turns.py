"""Which clip a worker takes next, and which one it reads ahead.

A clip that a worker reads ahead stays in the queue, and is left to that worker as long as there are others.

    queue   b  c  d  e         worker 0 computes a and reads b ahead
            │  │  └──────────  worker 1 is starting and will take c, so that worker 2 reads d ahead
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from itertools import islice

from aot.runs.task import ClipTask


def take_next(queue: deque[ClipTask], own: str | None, of_others: Collection[str]) -> ClipTask:
    """Take the next clip of a worker from the queue.

    Args:
        queue: clips to compute, at least one.
        own: id of the clip that the worker was to read ahead; None: none.
        of_others: ids of the clips that other workers were to read ahead.
    """
    task = find(queue, own) or next((task for task in queue if task.clip.clip_id not in of_others), queue[0])
    remove(queue, task)
    return task


def following(queue: deque[ClipTask], task: ClipTask, of_others: Collection[str], num_waiting: int) -> ClipTask | None:
    """The clip to read ahead while a worker computes one; None if there is none that it would probably take next.

    Args:
        queue: clips to compute, without `task`.
        task: the clip that the worker computes.
        of_others: ids of the clips that other workers were to read ahead.
        num_waiting: number of other workers that will take a clip before.
    """
    if not task.allows_reading_ahead:
        return None
    free = (each for each in queue if each.clip.clip_id not in of_others)
    candidate = next(islice(free, num_waiting, None), None)
    return candidate if candidate is not None and candidate.allows_reading_ahead else None


def find(queue: deque[ClipTask], clip_id: str | None) -> ClipTask | None:
    """The task of a clip in a queue; None if it is not there."""
    return next((task for task in queue if task.clip.clip_id == clip_id), None)


def remove(queue: deque[ClipTask], task: ClipTask) -> None:
    """Remove a task from the queue that it is in."""
    # Not queue.remove: it compares tasks by their values, among which there are arrays.
    del queue[next(place for place, each in enumerate(queue) if each is task)]
