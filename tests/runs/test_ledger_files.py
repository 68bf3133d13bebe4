"""Ledgers of living workers, of workers that have ended, and batches: every event is read once, wherever it lies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aot.paths import RunPaths
from aot.runs import ledger_files as module
from aot.runs.ledger import Ledger, LedgerTail, last_done, last_events, last_states, outlines, read_events
from aot.runs.ledger_files import end_dead_ledgers, end_ledgers, end_ledgers_of_tasks, ledger_files, ledgers_of_task
from aot.runs.state import RunState, merge_ended_ledgers
from aot.system.processes import host, is_alive

DEAD = 2**22 + 1
SUMMARY = {"num_frames": 8, "object_errors": {}, "seconds": {"track": 2.0}}


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "run.json").touch()
    return RunPaths(tmp_path)


def write(paths: RunPaths, worker: str, *clip_ids: str, event: str = "started", **details: Any) -> None:
    for clip_id in clip_ids:
        Ledger(paths, worker).append(event, clip_id=clip_id, **details)


def read(paths: RunPaths) -> list[str]:
    return [event["clip_id"] for event in read_events(paths)]


def places(paths: RunPaths) -> dict[str, int]:
    """How many files with ledgers there are: of living workers, ended ones, and batches."""
    ended = [path.name for path in paths.ended_ledgers.glob("*.jsonl")] if paths.ended_ledgers.exists() else []
    num_batches = sum(name.startswith("batch-") for name in ended)
    return {
        "living": len(list(paths.ledgers.glob("*.jsonl"))),
        "ended": len(ended) - num_batches,
        "batches": num_batches,
    }


def test_events_are_read_from_all_places(paths: RunPaths) -> None:
    write(paths, "w1", "a", "b")
    write(paths, "w2", "c")
    end_ledgers(paths, ["w1", "w2", "none"])
    assert merge_ended_ledgers(paths, at_least=2)
    write(paths, "w3", "d")
    end_ledgers(paths, ["w3"])
    write(paths, "w4", "e")
    assert places(paths) == {"living": 1, "ended": 1, "batches": 1}
    assert read(paths) == ["a", "b", "c", "d", "e"]
    assert [(event["worker"], event["clip_id"]) for event in outlines(paths, ())] == [
        ("w4", "e"), ("w1", "a"), ("w1", "b"), ("w2", "c"), ("w3", "d"),
    ]  # fmt: skip


def test_few_ended_ledgers_stay_files(paths: RunPaths) -> None:
    write(paths, "w1", "a")
    end_ledgers(paths, ["w1"])
    assert not merge_ended_ledgers(paths)
    assert not merge_ended_ledgers(paths, at_least=2)
    assert places(paths) == {"living": 0, "ended": 1, "batches": 0}
    assert not merge_ended_ledgers(RunPaths(paths.root / "none"))


def test_batches_are_not_merged_again(paths: RunPaths) -> None:
    for number in range(4):
        write(paths, f"w{number}", f"clip{number}")
        end_ledgers(paths, [f"w{number}"])
        assert merge_ended_ledgers(paths, at_least=2) == (number in (1, 3))
    assert places(paths) == {"living": 0, "ended": 0, "batches": 2}
    assert sorted(read(paths)) == ["clip0", "clip1", "clip2", "clip3"]


def test_ledger_of_an_earlier_process_of_the_same_name_is_not_replaced(paths: RunPaths) -> None:
    write(paths, "w", "a")
    end_ledgers(paths, ["w"])
    write(paths, "w", "b")
    end_ledgers(paths, ["w"])
    assert read(paths) == ["a", "b"]
    assert places(paths) == {"living": 1, "ended": 1, "batches": 0}


@pytest.mark.parametrize("number", [1, 2])
def test_merging_that_was_interrupted_loses_and_repeats_no_event(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for worker in ("w1", "w2"):
        write(paths, worker, worker)
    end_ledgers(paths, ["w1", "w2"])
    removals: list[Path] = []
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".jsonl":
            removals.append(path)
            if len(removals) == number:
                raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_ended_ledgers(paths, at_least=2)
    assert read(paths) == ["w1", "w2"]
    assert not merge_ended_ledgers(paths, at_least=1), "what is left over is removed"
    assert places(paths) == {"living": 0, "ended": 0, "batches": 1}
    assert read(paths) == ["w1", "w2"]
    assert not list(paths.ended_ledgers.glob("*.lock"))


@pytest.mark.parametrize(
    ("holder", "is_merged"),
    [({"pid": os.getppid()}, False), ({"pid": DEAD}, True), ({"host": "elsewhere"}, False), ({"age": 700.0}, True)],
)
def test_one_process_merges_at_a_time(paths: RunPaths, holder: dict[str, Any], is_merged: bool) -> None:
    for worker in ("w1", "w2"):
        write(paths, worker, worker)
    end_ledgers(paths, ["w1", "w2"])
    lock = paths.ended_ledgers / "merging.lock"
    lock.write_text(json.dumps({"host": host(), "pid": os.getppid()} | holder))
    written = lock.stat().st_mtime - holder.get("age", 0.0)
    os.utime(lock, (written, written))
    assert merge_ended_ledgers(paths, at_least=2) == is_merged
    assert read(paths) == ["w1", "w2"]
    assert lock.exists() != is_merged


def test_two_processes_that_see_a_lock_left_over_do_not_both_merge(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one has replaced the lock when the second one, which is this one, is about to remove it."""
    for worker in ("w1", "w2"):
        write(paths, worker, worker)
    end_ledgers(paths, ["w1", "w2"])
    lock = paths.ended_ledgers / "merging.lock"
    lock.write_text(json.dumps({"host": host(), "pid": DEAD}))
    first = {"host": host(), "pid": os.getppid()}

    def replaced(pid: int) -> bool:
        if pid == DEAD:
            lock.write_text(json.dumps(first))
        return is_alive(pid)

    monkeypatch.setattr(module, "is_alive", replaced)
    assert not merge_ended_ledgers(paths, at_least=2)
    assert json.loads(lock.read_text()) == first
    assert places(paths)["batches"] == 0


@pytest.mark.parametrize("is_merged", [False, True])
def test_ledger_that_is_moved_after_it_was_listed_is_found(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, is_merged: bool
) -> None:
    write(paths, "w1", "a", "b")
    write(paths, "w2", "c")
    list_files = module.ledger_files

    def then_move(paths: RunPaths, known: Any = ()) -> Any:
        files = list_files(paths, known)
        end_ledgers(paths, ["w1", "w2"])
        if is_merged:
            merge_ended_ledgers(paths, at_least=2)
        return files

    monkeypatch.setattr("aot.runs.ledger.ledger_files", then_move)
    assert read(paths) == ["a", "b", "c"]


def test_ledger_that_is_moved_while_it_is_listed_is_read_once(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    write(paths, "w1", "a")
    list_living = module.open_ledgers

    def then_move(paths: RunPaths) -> Any:
        found = list_living(paths)
        end_ledgers(paths, ["w1"])
        return found

    monkeypatch.setattr(module, "open_ledgers", then_move)
    assert read(paths) == ["a"]


Move = Callable[[RunPaths], object]


@pytest.mark.parametrize(
    "moves",
    [
        (lambda paths: end_ledgers(paths, ["w1", "w2"]), lambda paths: merge_ended_ledgers(paths, at_least=2)),
        (lambda paths: [end_ledgers(paths, ["w1", "w2"]), merge_ended_ledgers(paths, at_least=2)],),
        (
            lambda paths: end_ledgers(paths, ["w1"]),
            lambda paths: [end_ledgers(paths, ["w2"]), merge_ended_ledgers(paths, at_least=2)],
        ),
    ],
    ids=["one after another", "at once", "one before"],
)  # fmt: skip
def test_tail_returns_every_event_once_wherever_its_ledger_is_moved(paths: RunPaths, moves: tuple[Move, ...]) -> None:
    tail = LedgerTail(paths)
    write(paths, "w1", "a")
    write(paths, "w2", "b")
    found = [event["clip_id"] for event in tail.new_events()]
    write(paths, "w1", "c")
    for move in moves:
        move(paths)
        found += [event["clip_id"] for event in tail.new_events()]
    write(paths, "w3", "d")
    write(paths, "w1", "e")  # recorded for a dead worker
    found += [event["clip_id"] for event in tail.new_events()]
    assert found == ["a", "b", "c", "d", "e"]
    assert tail.new_events() == []


def test_tail_that_skips_returns_only_what_follows_and_opens_nothing(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for worker in ("w1", "w2", "w3", "w4"):
        write(paths, worker, worker)
    end_ledgers(paths, ["w1", "w2"])
    merge_ended_ledgers(paths, at_least=2)
    end_ledgers(paths, ["w3"])
    tail = LedgerTail(paths)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", None)
        tail.skip()
    write(paths, "w4", "a")
    end_ledgers(paths, ["w4"])
    assert [event["clip_id"] for event in tail.new_events()] == ["a"]
    merge_ended_ledgers(paths, at_least=2)
    assert tail.new_events() == []


def test_tail_looks_only_at_ledgers_that_may_grow(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        write(paths, f"w{number}", "a")
    tail = LedgerTail(paths)
    tail.new_events()
    end_ledgers(paths, [f"w{number}" for number in range(19)])
    tail.new_events()
    opened: list[str] = []
    path_open = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": (opened.append(path.name), path_open(path, mode))[1])
    write(paths, "w19", "b")
    assert [event["clip_id"] for event in tail.new_events()] == ["b"]
    assert opened == ["w19.jsonl"]


def done(paths: RunPaths, worker: str, clip_id: str, *, error: str = "", num_frames: int = 8) -> None:
    summary = SUMMARY | {"num_frames": num_frames, "object_errors": {"1": error} if error else {}}
    write(paths, worker, clip_id)
    write(paths, worker, clip_id, event="done", summary=summary, file_bytes=5)


def state_of(paths: RunPaths) -> dict[str, Any]:
    state = RunState()
    for event in LedgerTail(paths).new_events(state.absorb):
        state.add(event)
    clip_ids = "abcdef"
    return {
        "partial": [clip_id for clip_id in clip_ids if state.is_partial(clip_id)],
        "undrawn": [clip_id for clip_id in clip_ids if state.is_undrawn(clip_id)],
        "open": sorted(clip_id for clip_id, _ in state.open),
        "frames": sorted(state.done_since(0.0)),
        "busy": state.times.busy_fraction is not None,
        "workers": sorted(state.times.by_worker),
    }


def test_summaries_of_batches_give_the_same_state_as_the_events(paths: RunPaths) -> None:
    done(paths, "w1", "a", error="no mask")
    done(paths, "w1", "b")
    write(paths, "w1-draw0", "b", event="scored")
    done(paths, "w2", "c", error="no mask")
    write(paths, "w3", "d")
    done(paths, "w4", "a", num_frames=3)  # again, now complete
    write(paths, "w4-draw0", "a", "b", event="ended")
    done(paths, "w5", "e")
    expected = state_of(paths)
    assert expected == {
        "partial": ["c"], "undrawn": ["c", "e"], "open": ["d"], "frames": [3, 8, 8, 8], "busy": True,
        "workers": ["w1", "w2", "w4", "w5"],
    }  # fmt: skip
    for workers in (["w4", "w1-draw0"], ["w1", "w2", "w3"], ["w4-draw0", "w5"]):
        end_ledgers(paths, workers)
        assert state_of(paths) == expected
        assert merge_ended_ledgers(paths, at_least=2)
        assert state_of(paths) == expected
    assert places(paths) == {"living": 0, "ended": 0, "batches": 3}
    assert last_done(paths, "file_bytes").keys() == set("abce")


def test_lines_that_a_crash_has_damaged_are_left_out_of_batches(paths: RunPaths) -> None:
    done(paths, "w1", "a")
    with paths.ledger("w1").open("a") as file:
        file.write('not an event\n{"event": "done"}\n{"event": "started", "cl')
    write(paths, "w2", "b")
    end_ledgers(paths, ["w1", "w2"])
    assert merge_ended_ledgers(paths, at_least=2)
    assert read(paths) == ["a", "a", "b"]
    assert state_of(paths)["open"] == ["b"]


def test_ledgers_of_dead_processes_are_ended(paths: RunPaths) -> None:
    names = {
        f"{host()}-{DEAD}": True, f"{host()}-{DEAD}-0": True, f"7_1.{host()}-{DEAD}-draw2": True,
        f"9.{host()}-{DEAD}-3": True,
        f"{host()}-{os.getpid()}-0": False, f"7_1.{host()}-{os.getpid()}-0": False, f"elsewhere-{DEAD}-0": False,
        "elsewhere-7-0": True,
    }  # fmt: skip
    assert not is_alive(DEAD)
    for name in names:
        write(paths, name, "a")
    two_days_ago = paths.run_json.stat().st_mtime - 2 * 24 * 3600
    os.utime(paths.ledger("elsewhere-7-0"), (two_days_ago, two_days_ago))
    end_dead_ledgers(paths)
    assert {name: (paths.ended_ledgers / f"{name}.jsonl").exists() for name in names} == names
    assert len(read(paths)) == len(names)


def test_ledgers_of_a_task_are_found_by_their_names(paths: RunPaths) -> None:
    for name in ("7_1.n1-5-0", "7_1.n2-9-draw0", "7_10.n1-6-0", "7_2.n1-8-0", "n1-5-0"):
        write(paths, name, name)
    end_ledgers(paths, ["7_1.n1-5-0"])
    found = ledgers_of_task(paths, "7_1")
    assert sorted(event["clip_id"] for event in read_events(paths, files=found)) == ["7_1.n1-5-0", "7_1.n2-9-draw0"]
    end_ledgers_of_tasks(paths, ["7_2", "7_1"])
    assert sorted(path.stem for path in paths.ledgers.glob("*.jsonl")) == ["7_10.n1-6-0", "n1-5-0"]
    assert len(ledger_files(paths)) == 5


def test_states_for_a_plan_are_read_in_one_pass(paths: RunPaths) -> None:
    """The summaries of results, most of the text, are not parsed; version 0.1 recorded more after them."""
    done(paths, "w1", "a")
    write(paths, "w1", "a", event="scored", file_sha256="1", scores={})
    write(paths, "w1", "a", event="ended", overlay="style")
    done(paths, "w2", "b")
    write(paths, "w2", "c", event="done", summary=SUMMARY, file_sha256="2", scores={})
    write(paths, "w1", "b", event="taken up", content={"size": 1}, file_bytes=6, is_partial=True, summary=SUMMARY)
    write(paths, "w1", "c", event="redo requested")
    details = ("content", "file_bytes", "file_sha256", "is_partial")
    expected = (
        last_done(paths, *details),
        last_events(paths, ("ended",), "overlay"),
        last_events(paths, ("redo requested",)),
    )
    assert last_states(paths) == expected
    assert expected[0]["a"]["file_sha256"] == "1"
    assert expected[0]["b"]["file_bytes"] == 6
    assert expected[0]["c"]["file_sha256"] == "2"
    assert expected[1].keys() == {"a"}
    assert expected[2].keys() == {"c"}
