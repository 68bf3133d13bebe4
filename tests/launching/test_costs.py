"""Estimated costs of clips, without videos."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aot.decoding.size import ClipSize
from aot.errors import DecodeError
from aot.launching import costs
from aot.launching.costs import estimate_costs, find_sizes, recorded_sizes, size_as_json, size_from_json
from aot.runs.fingerprint import Fingerprint
from aot.types import Clip, Prompt

SIZE = ClipSize(num_frames=10, width=20, height=30, fps=5.0)


def clip(clip_id: str, *, num_objects: int = 1, **times: float) -> Clip:
    prompts = tuple(Prompt(number + 1, 0, box=(0, 0, 4, 4)) for number in range(num_objects))
    return Clip(clip_id, Path(f"{clip_id}.mp4"), prompts, **times)


def print_of(clip_id: str, size: int = 100) -> Fingerprint:
    return Fingerprint(f"/{clip_id}.mp4", size, mtime_ns=1, prompts_sha256="")


def test_cost_is_kept_frames_times_pixels_times_objects() -> None:
    clips = [clip("a"), clip("b", num_objects=3), clip("c", start_seconds=0.0, end_seconds=1.0)]
    prints = {each.clip_id: print_of(each.clip_id) for each in clips}
    sizes = dict.fromkeys("abc", SIZE)
    assert estimate_costs(clips, prints, sizes, 1) == {"a": 6000.0, "b": 18000.0, "c": 3000.0}
    assert estimate_costs(clips, prints, sizes, 4) == {"a": 1800.0, "b": 5400.0, "c": 1200.0}, "rounded up"
    assert estimate_costs(clips, prints, sizes, 1, 2.0) == {"a": 2400.0, "b": 7200.0, "c": 1200.0}
    assert estimate_costs(clips, prints, sizes, 1, 30.0) == estimate_costs(clips, prints, sizes, 1)


def test_cost_of_an_unopened_clip_follows_from_its_bytes_and_the_median_of_the_others() -> None:
    clips = [clip(clip_id) for clip_id in "abc"] + [clip("d", num_objects=2), clip("e")]
    prints = {"a": print_of("a", 600), "b": print_of("b", 60), "c": print_of("c", 6000)}
    prints |= {"d": print_of("d", 50), "e": print_of("e", -1)}
    found = estimate_costs(clips, prints, dict.fromkeys("abc", SIZE), 1)
    assert found["d"] == 2 * 50 * 10, "the median is 10 px per byte"
    assert found["e"] == 0, "its source does not exist"


def test_without_any_size_the_cost_is_the_number_of_bytes() -> None:
    assert estimate_costs([clip("a")], {"a": print_of("a", 70)}, {}, 1) == {"a": 70.0}


def test_cost_of_an_empty_source_and_of_a_clip_without_objects() -> None:
    assert estimate_costs([clip("a", num_objects=0)], {"a": print_of("a", 0)}, {"a": SIZE}, 1) == {"a": 6000.0}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Names of the sources that were opened; sources whose name contains "broken" cannot be read."""
    names: list[str] = []

    def read(source: Path, pattern: str | None = None, stream: int | None = None) -> ClipSize:
        names.append(source.stem)
        if "broken" in source.name:
            raise DecodeError("no header")
        return SIZE

    monkeypatch.setattr(costs, "read_size", read)
    costs._read_once.cache_clear()
    return lambda: sorted(names)


def test_recorded_and_unreadable_sizes(opened: Callable[[], list[str]]) -> None:
    clips = [clip(clip_id) for clip_id in ("a", "b", "broken")]
    prints = {each.clip_id: print_of(each.clip_id) for each in clips}
    other = ClipSize(1, 1, 1, 1.0)
    assert find_sizes(clips, prints, {"a": other}) == {"a": other, "b": SIZE}
    assert opened() == ["b", "broken"]
    find_sizes(clips, prints, {})
    assert opened() == ["a", "b", "broken"], "read once for all jobs of a sweep"
    find_sizes(clips, prints | {"b": print_of("b", 101)}, {})
    assert opened() == ["a", "b", "b", "broken"], "a changed file is read again"


@pytest.mark.parametrize(("limit", "expected"), [(6, "abcdef"), (5, "ace"), (2, "ad"), (1, "a")])
def test_only_a_sample_of_a_large_dataset_is_opened(
    opened: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, limit: int, expected: str
) -> None:
    monkeypatch.setattr(costs, "MAX_HEADERS", limit)
    clips = [clip(clip_id) for clip_id in "abcdef"]
    assert sorted(find_sizes(clips, {clip_id: print_of(clip_id) for clip_id in "abcdef"}, {})) == list(expected)
    assert opened() == list(expected)


def test_recorded_sizes_are_those_of_unchanged_sources() -> None:
    clips = [clip(clip_id) for clip_id in "abcd"]
    prints = {clip_id: print_of(clip_id) for clip_id in "abcd"}
    record = prints["a"].as_json() | size_as_json(SIZE)
    records = {"a": record, "b": record | {"size": 99}, "c": prints["c"].as_json()}
    assert recorded_sizes(clips, prints, records) == {"a": SIZE}
    assert size_from_json(record) == SIZE
