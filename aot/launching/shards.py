"""Who gets which clips: long ones first, so that no worker is left with a long one at the end, and evenly."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def pack(costs: Mapping[str, float], num_shards: int, capacity: int | None = None) -> list[list[str]]:
    """Deal clips out to shards: the longest that is left goes to the shard that has least to do.

        pack({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, 2)    [[a, d, e], [b, c]]    8 and 7

    The same costs always give the same shards.

    Args:
        costs: of every clip, in any unit.
        num_shards: ≥ 1; those that would stay empty are still there.
        capacity: no shard gets more clips than this; num_shards · capacity must have room for all.
    Returns:
        Clip ids of every shard, the long ones first; the shard with most to do first.
    """
    if capacity is not None and num_shards * capacity < len(costs):
        raise ValueError(f"pack: got {len(costs)} clips, expected at most {num_shards} shards of {capacity}")
    shards: list[list[str]] = [[] for _ in range(num_shards)]
    room = [(0.0, number) for number in range(num_shards)]
    for clip_id in longest_first(costs):
        load, number = heapq.heappop(room)
        shards[number].append(clip_id)
        if capacity is None or len(shards[number]) < capacity:
            heapq.heappush(room, (load + costs[clip_id], number))
    return sorted(shards, key=lambda shard: -sum(costs[clip_id] for clip_id in shard))


def longest_first(costs: Mapping[str, float]) -> Sequence[str]:
    """Clip ids by falling cost; equals by name."""
    return sorted(costs, key=lambda clip_id: (-costs[clip_id], clip_id))
