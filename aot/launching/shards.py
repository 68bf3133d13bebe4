"""Dividing clips into shards of about the same cost, the longest clips first."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def pack(costs: Mapping[str, float], num_shards: int, capacity: int | None = None) -> list[list[str]]:
    """Divide clips into shards: the longest remaining clip goes to the shard with the lowest total cost so far.

        pack({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, 2)    [[a, d, e], [b, c]]    8 and 7

    The same costs always give the same shards.

    Args:
        costs: clip id → cost, in any unit.
        num_shards: ≥ 1; shards without a clip are returned too.
        capacity: maximum number of clips per shard; num_shards · capacity must be at least the number of clips.
    Returns:
        Clip ids of every shard, the longest clips first; the shard with the highest total cost first.
    """
    if capacity is not None and num_shards * capacity < len(costs):
        raise ValueError(f"pack: got {len(costs)} clips, expected at most {num_shards} shards of {capacity}")
    shards: list[list[str]] = [[] for _ in range(num_shards)]
    loads = [(0.0, number) for number in range(num_shards)]
    for clip_id in longest_first(costs):
        load, number = heapq.heappop(loads)
        shards[number].append(clip_id)
        if capacity is None or len(shards[number]) < capacity:
            heapq.heappush(loads, (load + costs[clip_id], number))
    return sorted(shards, key=lambda shard: -sum(costs[clip_id] for clip_id in shard))


def longest_first(costs: Mapping[str, float]) -> Sequence[str]:
    """Clip ids in descending order of cost; equal costs in the order of their ids."""
    return sorted(costs, key=lambda clip_id: (-costs[clip_id], clip_id))
