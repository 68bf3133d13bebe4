"""Results that were damaged after they were written: the same command moves them to quarantine/ and computes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from aot.errors import WriteError
from aot.paths import RunPaths
from aot.runs.ledger import Ledger, last_done
from aot.runs.quarantine import find_damaged, quarantine, quarantine_damaged
from aot.runs.verify import State, verify_run
from tests.command_line import VIDEOS, only_run, run_in


@pytest.fixture
def folder(finished_videos: Path, tmp_path: Path) -> Path:
    """A copy of the finished run of the videos a and b, which a test may damage."""
    return Path(shutil.copytree(finished_videos, tmp_path / "copy"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, extend, empty])
def test_the_same_command_computes_a_damaged_result_again(
    damage: Callable[[Path], None], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = RunPaths(only_run(folder / "outputs"))
    result, intact = paths.clip("a").result, paths.clip("b").result.read_bytes()
    damage(result)
    broken = result.read_bytes()
    assert run_in(folder, *VIDEOS, "dry_run=true") == 0
    assert "changed in size since they were written, to be computed again: a\n" in capsys.readouterr().out
    assert result.read_bytes() == broken, "a dry run changes nothing"
    assert run_in(folder, *VIDEOS) == 0
    printed = capsys.readouterr().out
    root = paths.root.relative_to(folder)
    assert "2 clips: 1 to run, 1 finished before\n" in printed
    assert (
        f"1 result (a) has changed in size since it was written: moved to {root}/quarantine, and computed again\n"
        in printed
    )
    assert paths.quarantine("a").read_bytes() == broken
    assert paths.clip("b").result.read_bytes() == intact
    assert {finding.state for finding in verify_run(paths)} == {State.COMPLETE}
    assert run_in(folder, *VIDEOS) == 0
    assert "2 finished before\n" in capsys.readouterr().out


def test_several_damaged_results_are_reported_in_one_sentence(folder: Path) -> None:
    paths = RunPaths(only_run(folder / "outputs"))
    sentence = quarantine_damaged(paths, ["a", "b"])
    assert sentence.startswith("2 results (a, b) have changed in size since they were written: moved to ")
    assert paths.quarantine("b").exists()


def write_ledger(paths: RunPaths, file_bytes: int | None) -> Ledger:
    """A ledger in which clip a is done."""
    paths.run_json.touch()
    ledger = Ledger(paths, "worker")
    ledger.append("started", clip_id="a", work="all")
    ledger.append("done", clip_id="a", file_bytes=file_bytes)
    return ledger


def damaged(paths: RunPaths) -> set[str]:
    return find_damaged(paths, last_done(paths, "file_bytes"), ["a", "b"])


@pytest.mark.parametrize("file_bytes", [None, 3, 4])
def test_size_decides(file_bytes: int | None, tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    write_ledger(paths, file_bytes)
    assert damaged(paths) == set(), "a result that does not exist is missing, not damaged"
    for clip_id in ("a", "b"):
        paths.results.mkdir(exist_ok=True)
        paths.clip(clip_id).result.write_bytes(b"123")
    assert damaged(paths) == ({"a"} if file_bytes == 4 else set())


def test_result_that_another_worker_may_have_replaced_is_not_damaged(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    ledger = write_ledger(paths, 4)
    paths.results.mkdir()
    paths.clip("a").result.write_bytes(b"123")
    ledger.append("started", clip_id="a", work="overlay")
    assert damaged(paths) == {"a"}, "drawing does not replace the result"
    ledger.append("started", clip_id="a", work="all")
    assert damaged(paths) == set()


def test_file_that_cannot_be_moved(tmp_path: Path) -> None:
    paths = RunPaths(tmp_path)
    paths.results.mkdir()
    paths.clip("a").result.touch()
    (tmp_path / "quarantine").write_text("in the way")
    with pytest.raises(WriteError, match=r"a\.h5 cannot be moved to .*/quarantine/a\.h5: a .* exists already; rename"):
        quarantine(paths, "a")
