"""Checks before a run starts, with headers and decoders that are scripted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aot.config import Selection, Shard
from aot.decoding.size import ClipSize
from aot.errors import ConfigError, DecodeError
from aot.launching.preflight import plan_run
from aot.types import Clip
from tests.launching.in_memory import MemoryRun


@dataclass
class Sources:
    """What headers show, and what a decoder says; sources that are not listed can be read."""

    num_frames: dict[str, int | Exception] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)

    def read_size(self, source: Path, pattern: str | None = None, stream: int | None = None) -> ClipSize:
        found = self.num_frames.get(source.stem, 10)
        if isinstance(found, Exception):
            raise found
        return ClipSize(found, 96, 64, 10.0)

    def open_source(self, clip: Clip) -> Any:
        self.opened.append(clip.clip_id)
        if clip.clip_id in self.errors:
            raise self.errors[clip.clip_id]
        return self

    def close(self) -> None:
        self.opened.append("closed")

    def fail(self, *clip_ids: str) -> None:
        for clip_id in clip_ids:
            self.num_frames[clip_id] = DecodeError("no header")
            self.errors[clip_id] = DecodeError(f"{clip_id}.mp4 is not a video; copy it again")


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Sources:
    sources = Sources()
    for module in ("preflight", "costs"):
        monkeypatch.setattr(f"aot.launching.{module}.read_size", sources.read_size)
    monkeypatch.setattr("aot.launching.preflight.open_source", sources.open_source)
    return sources


@pytest.fixture
def run(tmp_path: Path) -> MemoryRun:
    return MemoryRun(tmp_path, dict.fromkeys("abc", 10))


def start(run: MemoryRun, **changes: Any) -> list[str]:
    """Ids of the clips of a run that passes the checks."""
    return [clip.clip_id for clip in plan_run(run.config(**changes), run.paths.root).clips]


def test_headers_are_enough(run: MemoryRun, sources: Sources) -> None:
    assert start(run) == ["a", "b", "c"]
    assert sources.opened == []


def test_run_starts_if_one_clip_can_be_read(run: MemoryRun, sources: Sources) -> None:
    sources.fail("a", "b")
    assert start(run) == ["a", "b", "c"]
    assert sources.opened == ["a", "b"]


def test_run_without_a_readable_clip_is_refused(run: MemoryRun, sources: Sources) -> None:
    sources.fail("a", "b", "c")
    with pytest.raises(ConfigError, match=r"^none of the 3 clips .*; the first one: a.mp4 is not a video; copy it"):
        start(run)
    with pytest.raises(ConfigError, match=r"^a.mp4 is not a video; copy it again$"):
        start(run, selection=Selection(limit=1))


def test_source_that_opens_is_accepted_whatever_its_header_shows(run: MemoryRun, sources: Sources) -> None:
    sources.fail("a", "b", "c")
    del sources.errors["b"]
    assert start(run) == ["a", "b", "c"]
    assert sources.opened == ["a", "b", "closed"]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), PermissionError(13, "Permission denied")])
def test_error_of_the_system_is_left_to_the_worker(run: MemoryRun, sources: Sources, error: OSError) -> None:
    for clip_id in "abc":
        sources.num_frames[clip_id] = sources.errors[clip_id] = error
    assert start(run) == ["a", "b", "c"]


def test_time_range_after_the_end_is_refused_if_the_decoder_agrees(run: MemoryRun, sources: Sources) -> None:
    late = Selection(start_seconds=1.0)
    for clip_id in "abc":
        sources.errors[clip_id] = DecodeError(f"{clip_id}: no frame in the time range")
    with pytest.raises(ConfigError, match="the first one: a: no frame in the time range"):
        start(run, selection=late)
    sources.num_frames = dict.fromkeys("abc", 11)
    assert start(run, selection=late) == ["a", "b", "c"], "the header shows one frame in it"


def test_large_runs_are_checked_up_to_the_first_readable_clip(tmp_path: Path, sources: Sources) -> None:
    names = [f"clip{number:02}" for number in range(21)]
    run = MemoryRun(tmp_path, dict.fromkeys(names, 10))
    sources.fail(*names)
    with pytest.raises(ConfigError, match=r"none of the 21 clips \(clip00, .*, clip04, …\) can be read; the first one"):
        start(run)
    sources.opened.clear()
    del sources.num_frames["clip01"]
    assert start(run) == names
    assert sources.opened == ["clip00"]


def test_limited_number_of_clips_is_opened(tmp_path: Path, sources: Sources) -> None:
    names = [f"clip{number:02}" for number in range(60)]
    run = MemoryRun(tmp_path, dict.fromkeys(names, 10))
    sources.fail(*names)
    assert start(run) == names
    assert sources.opened == names[:50]


def test_run_with_results_is_not_checked(run: MemoryRun, sources: Sources) -> None:
    run.finish("b")
    sources.fail("a", "b", "c")
    assert start(run) == ["a", "b", "c"]


def test_only_the_clips_of_the_shard_are_checked(run: MemoryRun, sources: Sources) -> None:
    sources.fail("a")
    assert start(run, shard=Shard(number=2, count=3)) == ["a", "b", "c"]
    shards = [run.plan(shard=Shard(number=number, count=3)).shard_clips for number in (1, 2, 3)]
    (number,) = [number for number, clips in enumerate(shards, start=1) if clips[0].clip_id == "a"]
    with pytest.raises(ConfigError, match=r"a\.mp4 is not a video"):
        start(run, shard=Shard(number=number, count=3))


def test_output_folder_that_cannot_be_written_is_refused(run: MemoryRun, sources: Sources) -> None:
    (run.folder / "file").touch()
    with pytest.raises(ConfigError, match=r"output.root=.* cannot be written, because .*file is a file"):
        plan_run(run.config(), run.folder / "file" / "run")
    (run.paths.root / "notes").touch()
    assert start(run) == ["a", "b", "c"], "an existing run folder is not tried"
