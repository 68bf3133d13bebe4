"""Which worker computes a clip: claims, and those of workers that are not running any more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aot.paths import RunPaths
from aot.runs.claims import Claims
from aot.runs.ledger import SILENT_SECONDS, Ledger
from aot.system.processes import host

DEAD = 2**22 + 1


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "run.json").touch()
    return RunPaths(tmp_path)


def claim(paths: RunPaths, clip_id: str = "day1/a", **changes: Any) -> None:
    """The claim of a living worker on another machine, except for the changes."""
    holder = {"worker": "other", "host": "elsewhere", "pid": 7} | changes
    path = paths.claim(clip_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(holder))
    Ledger(paths, holder["worker"]).append("started", clip_id=clip_id)


def test_claim_of_a_clip_ends_with_its_release(paths: RunPaths) -> None:
    claims = Claims(paths)
    assert claims.holder("day1/a") is None
    assert claims.take("day1/a", "own")
    assert claims.holder("day1/a") == {"clip_id": "day1/a", "worker": "own", "host": host(), "pid": os.getpid()}
    assert claims.take("day1/a", "own"), "the next attempt of the same supervisor"
    assert not claims.is_claimed("day1/a"), "by another supervisor"
    claims.release("day1/a")
    assert list(paths.claim("").parent.iterdir()) == []


def test_clip_of_a_living_worker_is_left_to_it(paths: RunPaths) -> None:
    claim(paths)
    claims = Claims(paths)
    assert not claims.take("day1/a", "own")
    assert claims.is_claimed("day1/a")
    assert claims.take("day1/b", "own")
    claims.release("day1/a")
    assert claims.is_claimed("day1/a"), "only its holder releases it"


@pytest.mark.parametrize("pid", [DEAD, None])
def test_clip_of_a_process_of_this_machine(paths: RunPaths, pid: int | None) -> None:
    claim(paths, host=host(), pid=pid or os.getppid())
    assert Claims(paths).take("day1/a", "own") == (pid == DEAD)


def test_clip_of_a_worker_whose_ledger_is_silent_is_taken(paths: RunPaths) -> None:
    claim(paths)
    long_ago = 1e9
    os.utime(paths.ledger("other"), (long_ago, long_ago))
    assert Claims(paths).take("day1/a", "own")


def test_ledger_with_a_stamp_of_this_moment_is_watched(paths: RunPaths) -> None:
    """The clock of its machine may be wrong: only whether the ledger changes is believed."""
    claim(paths)
    now = [0.0]
    claims = Claims(paths, lambda: now[0])
    assert not claims.take("day1/a", "own")
    now[0] = SILENT_SECONDS
    assert claims.take("day1/a", "own")


@pytest.mark.parametrize("content", ["", "{}", "[]", "7", '{"worker": "w"'])
def test_claim_that_cannot_be_read_is_replaced(paths: RunPaths, content: str) -> None:
    path = paths.claim("day1/a")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    claims = Claims(paths)
    assert claims.take("day1/a", "own")
    assert claims.holder("day1/a")


def test_deleted_run_folder_is_not_made_again(tmp_path: Path) -> None:
    assert Claims(RunPaths(tmp_path / "run")).take("a", "own")
    assert not (tmp_path / "run").exists()
