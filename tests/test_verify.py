"""Runs that were whole, and what has happened to them since."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from aot.paths import RunPaths
from aot.run import main as run_main
from aot.runs.run_json import read_run_json
from aot.verify import Expected, FileChecker, State, main, verify_run
from tests.fuzz.__main__ import FINDINGS

CLIPS = ("late", "zoom")


def command(folder: Path) -> list[str]:
    return [
        "dataset=demo", f"dataset.root={folder / 'demo'}", f"dataset.include=[{','.join(CLIPS)}]", "frame_interval=8",
        f"output.root={folder / 'out'}", "output.overlay=false", "segmenter=grabcut", "tracker=lucas_kanade",
        "launcher=inline",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    assert run_main(command(folder)) == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def run_paths(folder: Path) -> RunPaths:
    (root,) = folder.glob("out/demo/*")
    return RunPaths(root)


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def edited(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return edited


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def take_the_others(path: Path) -> None:
    shutil.copy(path.with_name("zoom.h5"), path)


def flip_a_byte_of_a_mask(path: Path) -> None:
    with h5py.File(path, "r") as file:
        chunk = file["masks/data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def drop_a_frame(file: h5py.File) -> None:
    index = file["frames/index"][()]
    index[1] = index[0] + 1
    file["frames/index"][...] = index


def shorten_the_tracks(file: h5py.File) -> None:
    xy = file["tracks/xy"][()]
    del file["tracks/xy"]
    file["tracks/xy"] = xy[:-1]


def test_a_whole_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for flags in ([], ["--quick"]):
        assert main([str(paths.root), *flags]) == 0
        assert capsys.readouterr().out == f"{paths.root}: 2 whole\n"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "not a complete result file"),
        (empty, "not a complete result file"),
        (take_the_others, "clip_id is 'zoom', expected 'late'"),
        (edit(lambda file: file.attrs.__setitem__("config_hash", "0")), "config_hash is '0'"),
        (edit(lambda file: file.attrs.__delitem__("seconds")), "attributes seconds are missing"),
        (edit(lambda file: file.__delitem__("masks")), "not a complete result file"),
        (edit(shorten_the_tracks), "not a complete result file"),
        (edit(drop_a_frame), "1 are missing, and 1 are there that nothing asks for"),
        (edit(lambda file: file["frames/index"].__setitem__(-1, 900)), "not within the 48 frames"),
        (edit(lambda file: file["frames/time"].__setitem__(0, 9.0)), "frames/time: impossible values"),
        (edit(lambda file: file["masks/row"].__setitem__(0, 1)), "masks/row: impossible values"),
        (edit(lambda file: file["objects/id"].__setitem__(0, -7)), "objects/id, tracks/object_id: impossible values"),
        (
            edit(lambda file: file.attrs.__setitem__("frame_interval", 0)),
            "frame_interval is 0, expected an integer",
        ),
        (edit(lambda file: file.attrs.__setitem__("width", "abc")), "width is 'abc', expected an integer"),
        (
            edit(lambda file: file["objects/prompt"].__setitem__(0, '[{"name": "x"}]')),
            "objects/prompt: impossible values",
        ),
        (become_a_folder, "is no file"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_is_not_what_it_was(damage: Callable[[Path], None], reason: str, folder: Path) -> None:
    paths = run_paths(folder)
    damage(paths.clip("late").result)
    for quick in (True, False):
        late, zoom = verify_run(paths, quick=quick)
        assert late.state is State.BROKEN
        assert (reason if quick or reason == "is no file" else "has changed since it was written") in late.reason
        assert str(paths.clip("late").result) in late.reason
        assert zoom.state is State.WHOLE


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_another_versions_file_is_left_alone(
    flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run_paths(folder)
    late = paths.clip("late").result
    edit(lambda file: file.attrs.__setitem__("schema", "aot/0"))(late)
    for ledger in paths.ledgers.glob("*.jsonl"):
        ledger.unlink()
    assert main([str(paths.root), "--repair", *flags]) == 1
    said = capsys.readouterr().out
    assert f"late: not checked: {late}: schema 'aot/0', expected 'aot/1'; read it with the version" in said
    assert late.exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc to find an unreadable file in")
def test_a_file_that_cannot_be_read_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    late = paths.clip("late").result
    late.unlink()
    late.symlink_to("/proc/self/mem")  # nobody can read its beginning, not even root
    assert main([str(paths.root), "--repair"]) == 1
    assert f"late: not checked: {late} cannot be read: " in capsys.readouterr().out
    assert late.is_symlink()


def test_without_a_recorded_digest_it_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for ledger in paths.ledgers.glob("*.jsonl"):
        ledger.unlink()
    assert main([str(paths.root)]) == 0
    assert "2 of them have no recorded SHA-256 to compare with" in capsys.readouterr().out
    assert main([str(paths.root), "--quick"]) == 0
    assert "SHA-256" not in capsys.readouterr().out


def test_a_kill_before_the_file_was_noted_makes_it_no_broken_one(folder: Path) -> None:
    """A clip is taken again; its new file has its name, but its worker dies before it records the new digest."""
    paths = run_paths(folder)
    truncate(paths.clip("late").result)
    assert main([str(paths.root), "--repair"]) == 1
    (ledger,) = paths.ledgers.glob("*.jsonl")
    before = len(ledger.read_text().splitlines())
    assert run_main(command(folder)) == 0
    lines = ledger.read_text().splitlines(keepends=True)
    started = [line for line in lines[before:] if '"event": "started"' in line]
    ledger.write_text("".join(lines[:before] + started[:1]))
    late, zoom = verify_run(paths)
    assert (late.state, late.is_compared) == (State.WHOLE, False)
    assert (zoom.state, zoom.is_compared) == (State.WHOLE, True)


def test_what_is_written_while_it_looks_is_not_called_broken(folder: Path) -> None:
    paths = run_paths(folder)
    found = verify_run(paths)
    assert next(found).state is State.WHOLE
    # Before the second clip's turn it is made anew; nobody has recorded that yet.
    zoom = paths.clip("zoom").result
    edit(lambda file: file.attrs.__setitem__("created", "later"))(zoom)
    os.utime(zoom, (time.time() + 1, time.time() + 1))
    second = next(found)
    assert (second.state, "written while this looked" in second.reason) == (State.UNCHECKED, True)


def test_damage_inside_a_chunk_is_found_by_reading_all(folder: Path) -> None:
    paths = run_paths(folder)
    flip_a_byte_of_a_mask(paths.clip("late").result)
    assert next(verify_run(paths, quick=True)).state is State.WHOLE
    # Also where no digest was recorded.
    for ledger in (None, *paths.ledgers.glob("*.jsonl")):
        if ledger:
            lines = [json.loads(line) for line in ledger.read_text().splitlines()]
            ledger.write_text("".join(f"{json.dumps({**line, 'file_sha256': None})}\n" for line in lines))
        assert next(verify_run(paths)).state is State.BROKEN


def test_a_file_that_stops_the_library_does_not_stop_the_others(folder: Path) -> None:
    paths = run_paths(folder)
    hanging = next(FINDINGS.glob("results/hang-*"))
    zoom = paths.clip("zoom").result
    good = Expected("zoom", read_run_json(paths)["config_hash"], None)
    with FileChecker(stall_seconds=10) as checker:
        for path, state in ((zoom, State.WHOLE), (hanging, State.BROKEN), (zoom, State.WHOLE)):
            verdict = checker.examine(path, good, quick=path == hanging)
            assert verdict.state is state
            assert ("has not come back from it for 10 s" in verdict.reason) == (path == hanging)


def test_want_of_memory_is_no_damage(folder: Path) -> None:
    """A file may be larger than this machine bears; the one after it is examined all the same."""
    paths = run_paths(folder)
    late, zoom = (paths.clip(clip_id).result for clip_id in CLIPS)
    with h5py.File(late, "r+") as file:
        del file["tracks/xy"]
        file.create_dataset("tracks/xy", (10**9, 10**7, 2), "f4", chunks=(1, 1000, 2))  # no address space holds it
    config_hash = read_run_json(paths)["config_hash"]
    with FileChecker() as checker:
        verdict = checker.examine(late, Expected("late", config_hash, None), quick=True)
        assert (verdict.state, "not the memory to read it" in verdict.reason) == (State.UNCHECKED, True)
        assert checker.examine(zoom, Expected("zoom", config_hash, None), quick=True).state is State.WHOLE


def test_what_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for clip_id in CLIPS:
        paths.clip(clip_id).result.unlink()
    paths.clip("zoom").failure.parent.mkdir()
    paths.clip("zoom").failure.write_text('{"class": "decode", "message": "too short"}')
    assert main([str(paths.root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "late: pending",
        "zoom: failed: [decode] too short",
        f"{paths.root}: 1 failed, 1 pending",
    ]


def test_a_file_that_belongs_to_no_clip(folder: Path) -> None:
    paths = run_paths(folder)
    stranger = paths.results / "day1" / "stranger.h5"
    stranger.parent.mkdir()
    shutil.copy(paths.clip("late").result, stranger)
    found = list(verify_run(paths))[-1]
    assert (found.clip_id, found.state) == ("day1/stranger", State.UNLISTED)


def test_repair_makes_broken_files_pending_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    result = paths.clip("late").result
    for copies in (1, 2):
        truncate(result)
        broken = result.read_bytes()
        assert main([str(paths.root), "--repair"]) == 1
        assert "set aside as" in capsys.readouterr().out
        assert not result.exists()
        kept = sorted((paths.root / "quarantine").iterdir())
        assert len(kept) == copies
        assert kept[-1].read_bytes() == broken or kept[0].read_bytes() == broken
        assert run_main(command(folder)) == 0
        assert main([str(paths.root)]) == 0


def test_repair_forgets_what_failed_of_the_broken_file(folder: Path) -> None:
    paths = run_paths(folder)
    late = paths.clip("late")
    truncate(late.result)
    late.report.data.unlink()
    assert run_main(command(folder)) == 1, "its part of the report cannot be made of a broken file"
    assert late.failure.exists()
    assert main([str(paths.root), "--repair"]) == 1
    assert run_main(command(folder)) == 0
    assert main([str(paths.root)]) == 0


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"clips": ', "Expecting value"),
        ("[" * 100_000, "maximum recursion depth"),
        ("[]", "expected the keys config_hash and clips"),
        ('{"config_hash": "0", "clips": {"a": 3}}', "clip 'a': got 3, expected an object"),
        ('{"config_hash": "0", "clips": {"/etc/precious": {}}}', "clip id '/etc/precious': expected a relative path"),
    ],
)
def test_a_damaged_run_json(content: str, reason: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    paths.run_json.write_text(content)
    assert main([str(paths.root), "--repair"]) == 2
    said = capsys.readouterr().err
    assert f"{paths.run_json} is damaged (" in said
    assert reason in said
    paths.run_json.unlink()
    assert run_main(command(folder)) == 0, "as the message says"
    assert main([str(paths.root)]) == 0


def test_lines_of_a_ledger_that_are_no_events_are_passed_over(folder: Path) -> None:
    paths = run_paths(folder)
    (paths.ledgers / "a-folder.jsonl").mkdir()
    garbled = ['{"event": "done", "at": "2026-11-24"}', '{"event": "done", "at": "z", "clip_id": "late"}', "[]", "{"]
    (paths.ledgers / "garbled.jsonl").write_text("\n".join(garbled) + "\n")
    assert main([str(paths.root)]) == 0
    assert run_main(command(folder)) == 0
