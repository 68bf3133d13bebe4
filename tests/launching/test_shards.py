"""Shards of clips: of about the same cost, the longest clips first, and always the same division."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aot.launching.shards import pack
from tests.launching.clips import Clips

COSTS = st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1e6), min_size=1, max_size=40)


def test_longest_clip_goes_to_the_shard_with_the_lowest_cost() -> None:
    assert pack({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}, 2) == [["a", "d", "e"], ["b", "c"]]
    assert pack({"a": 9, "b": 1, "c": 1, "d": 1}, 2, capacity=2) == [["a", "d"], ["b", "c"]]
    assert pack({"a": 1}, 3) == [["a"], [], []]
    with pytest.raises(ValueError, match="at most 1 shards of 1"):
        pack({"a": 1, "b": 1}, 1, capacity=1)


@given(COSTS, st.integers(1, 8))
def test_every_clip_is_in_one_shard_and_costs_are_even(costs: dict[str, float], num_shards: int) -> None:
    shards = pack(costs, num_shards)
    assert sorted(clip_id for shard in shards for clip_id in shard) == sorted(costs)
    loads = [sum(costs[clip_id] for clip_id in shard) for shard in shards]
    assert max(loads) - min(loads) <= max(costs.values()) + 1e-6


@given(COSTS, st.integers(1, 5))
def test_no_shard_exceeds_its_capacity(costs: dict[str, float], capacity: int) -> None:
    shards = pack(costs, -(-len(costs) // capacity), capacity)
    assert sorted(clip_id for shard in shards for clip_id in shard) == sorted(costs)
    assert all(1 <= len(shard) <= capacity for shard in shards)


LENGTHS = {f"day{number % 2}/c{number}": 3 + 2 * number for number in range(7)}


@pytest.mark.long
def test_shards_are_the_same_whether_or_not_clips_are_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quick counterparts: test_shards_have_the_same_cost_not_the_same_number_of_clips in test_plan.py, and
    test_shard_is_named_and_only_its_clips_are_counted in tests/test_run_outcomes.py."""
    clips = Clips(tmp_path, LENGTHS)
    assert clips.run("shard=2/3", "launcher=inline") == 0
    first = clips.started()
    assert "2 clips (shard 2 of 3, 7 in total): 2 to run" in capsys.readouterr().out
    assert clips.run("shard=1/3", "launcher=inline") == 0
    assert clips.run("shard=3/3", "launcher=inline") == 0
    assert clips.run("shard=2/3", "launcher=inline") == 0
    assert sorted(clips.started()) == sorted(LENGTHS), "no clip twice"
    assert clips.started()[:2] == first
    clips.assert_none_lost()
    listed = json.loads((clips.root / "run.json").read_text())["clips"]
    assert {clip_id: record["num_frames"] for clip_id, record in listed.items()} == LENGTHS


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """test_dry_run.py has the prediction of time from clips that are done."""
    clips = Clips(tmp_path, LENGTHS)
    assert clips.run("dry_run=true") == 0
    shown = capsys.readouterr().out
    assert "7 clips: 7 to run" in shown
    assert "time: unknown until a clip of this run is done" in shown
    assert "rung 1 (as configured): 7 clips" in shown
    assert not (tmp_path / "outputs").exists()
