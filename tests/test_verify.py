"""Tests of `aot.verify`: run folders that were complete, and damage done to them."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import h5py
import pytest

import aot
from aot.paths import RunPaths
from aot.run import main as run_main
from aot.runs.run_json import read_run_json
from aot.runs.verify import Expected, FileChecker, State, verify_run
from aot.verify import main
from tests.command_line import DEMO_CLIPS, EMBEDDED, demo_command
from tests.fuzz.__main__ import FINDINGS
from tests.synthetic import moving_square, write_video

UNEVEN_MS = [0, 30, 70, 100, 130, 190, 240, 500, 530, 560, 600, 630]


@pytest.fixture(scope="module")
def checker() -> Iterator[FileChecker]:
    with FileChecker() as checker:
        yield checker


@pytest.fixture(autouse=True)
def one_child_process(checker: FileChecker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all checks share one child process, most of whose time is its start."""
    monkeypatch.setattr("aot.runs.verify.FileChecker", lambda: nullcontext(checker))


@pytest.fixture
def folder(demo_outputs: Path, tmp_path: Path) -> Path:
    """A copy of a run that a test may break."""
    shutil.copytree(demo_outputs, tmp_path / "out" / "demo" / demo_outputs.name)
    return tmp_path


@pytest.fixture
def command(demo_root: Path, folder: Path) -> list[str]:
    """The arguments of the run that `folder` is a copy of: they resume it."""
    return demo_command(demo_root, folder / "out")


def run_paths(folder: Path) -> RunPaths:
    (root,) = folder.glob("out/demo/*")
    return RunPaths(root)


def ledgers(paths: RunPaths) -> list[Path]:
    """Those of living workers and those that have ended."""
    return sorted(path for path in paths.ledgers.rglob("*.jsonl") if path.is_file())


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def edited(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return edited


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path: Path) -> None:
    """Keep the size, so that only reading the file shows the damage."""
    path.write_bytes(bytes(path.stat().st_size))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def copy_another_clips_file(path: Path) -> None:
    shutil.copy(path.with_name("zoom.h5"), path)


def flip_a_byte_of_a_mask(path: Path) -> None:
    with h5py.File(path, "r") as file:
        chunk = file["masks/data"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset + chunk.size // 2] ^= 0xFF
    path.write_bytes(content)


def replace_by_a_folder(path: Path) -> None:
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


def test_complete_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for flags in ([], ["--quick"]):
        assert main([str(paths.root), *flags]) == 0
        assert capsys.readouterr().out == f"{paths.root}: 2 complete\n"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (truncate, "it is damaged or cut off; expected clips/<clip_id>.h5 of a run folder; to compute it again"),
        (empty, "is an empty file; expected"),
        (copy_another_clips_file, "clip_id is 'zoom', expected 'late'"),
        (edit(lambda file: file.attrs.__setitem__("config_hash", "0")), "config_hash is '0'"),
        (edit(lambda file: file.attrs.__delitem__("seconds")), "attributes seconds are missing"),
        (edit(lambda file: file.__delitem__("masks")), "it lacks datasets or attributes of a result, or has others"),
        (edit(shorten_the_tracks), "it lacks datasets or attributes of a result, or has others"),
        (edit(drop_a_frame), "1 missing, 1 unexpected"),
        (edit(lambda file: file["frames/index"].__setitem__(-1, 900)), "not within the 48 frames"),
        (edit(lambda file: file["frames/time"].__setitem__(0, 9.0)), "frames/time: invalid values"),
        (edit(lambda file: file["masks/row"].__setitem__(0, 1)), "masks/row: invalid values"),
        (edit(lambda file: file["objects/id"].__setitem__(0, -7)), "objects/id, tracks/object_id: invalid values"),
        (
            edit(lambda file: file.attrs.__setitem__("frame_interval", 0)),
            "frame_interval is 0, expected an integer",
        ),
        (edit(lambda file: file.attrs.__setitem__("width", "abc")), "width is 'abc', expected an integer"),
        (
            edit(lambda file: file["objects/prompt"].__setitem__(0, '[{"name": "x"}]')),
            "objects/prompt: invalid values",
        ),
        (replace_by_a_folder, "is not a file"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_damaged_file_is_broken(damage: Callable[[Path], None], reason: str, folder: Path) -> None:
    paths = run_paths(folder)
    damage(paths.clip("late").result)
    for quick in (True, False):
        late, zoom = verify_run(paths, quick=quick)
        assert late.state is State.BROKEN
        assert (reason if quick or reason == "is not a file" else "has changed since it was written") in late.reason
        assert str(paths.clip("late").result) in late.reason
        assert zoom.state is State.COMPLETE


def test_frames_chosen_by_time(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", moving_square(12), times_ms=UNEVEN_MS)
    options = ["output.report=false", "output.overlay=false", f"output.root={tmp_path}", "query_points.num_points=9"]
    prompts = ["dataset.box=[16,20,36,40]", "dataset.frame=4"]
    assert run_main(["dataset=video", f"dataset.path={video}", *prompts, *EMBEDDED, *options, "sample_fps=10"]) == 0
    (root,) = (tmp_path / "video").iterdir()
    assert root.name.startswith("grabcut-lucas_kanade-fps10-")
    (result,) = root.glob("clips/*.h5")
    assert aot.load(result).index.tolist() == [0, 3, 4, 5, 6, 7, 10]

    def found() -> tuple[State, str]:
        (finding,) = verify_run(RunPaths(root), quick=True)
        return finding.state, finding.reason

    assert found() == (State.COMPLETE, "")
    for number in (5, 8):
        edit(lambda file, number=number: file.attrs.__setitem__("num_sampled_frames", number))(result)
        state, reason = found()
        assert state is State.BROKEN
        assert (
            f"sample_fps=10, frame_interval=1, the prompts and the queries require: 7 rows, expected {number}" in reason
        )
    edit(lambda file: file.attrs.__setitem__("sample_fps", -1.0))(result)
    assert "sample_fps is -1.0, expected a number above 0" in found()[1]
    edit(lambda file: file.attrs.__delitem__("num_sampled_frames"))(result)
    assert "num_sampled_frames is None, expected an integer of at least 1" in found()[1]


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_repair_keeps_files_of_another_version(
    flags: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run_paths(folder)
    late = paths.clip("late").result
    edit(lambda file: file.attrs.__setitem__("schema", "aot/0"))(late)
    for ledger in ledgers(paths):
        ledger.unlink()
    assert main([str(paths.root), "--repair", *flags]) == 1
    printed = capsys.readouterr().out
    assert (
        f"late: not checked: {late}: schema 'aot/0', expected 'aot/2' or 'aot/1'; read it with the version" in printed
    )
    assert late.exists()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no /proc to find an unreadable file in")
def test_repair_keeps_unreadable_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    late = paths.clip("late").result
    late.unlink()
    late.symlink_to("/proc/self/mem")  # its beginning cannot be read, not even by root
    assert main([str(paths.root), "--repair"]) == 1
    assert f"late: not checked: {late} cannot be read: " in capsys.readouterr().out
    assert late.is_symlink()


def test_missing_recorded_digest_is_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for ledger in ledgers(paths):
        ledger.unlink()
    assert main([str(paths.root)]) == 0
    assert "2 clips without a recorded SHA-256; only the contents were checked" in capsys.readouterr().out
    assert main([str(paths.root), "--quick"]) == 0
    assert "SHA-256" not in capsys.readouterr().out


def test_worker_killed_before_recording_the_file_does_not_make_it_broken(folder: Path, command: list[str]) -> None:
    """A clip is recomputed and its file renamed into place, but the worker dies before it records the new digest."""
    paths = run_paths(folder)
    truncate(paths.clip("late").result)
    assert main([str(paths.root), "--repair"]) == 1
    before = {path: path.read_text() for path in ledgers(paths)}
    assert run_main(command) == 0
    for ledger in ledgers(paths):  # another one if another process of pytest made the run
        known = before.get(ledger, "")
        lines = ledger.read_text()[len(known) :].splitlines(keepends=True)
        started = [line for line in lines if '"event": "started"' in line]
        ledger.write_text(known + "".join(started[:1]))
    late, zoom = verify_run(paths)
    assert (late.state, late.is_compared) == (State.COMPLETE, False)
    assert (zoom.state, zoom.is_compared) == (State.COMPLETE, True)


def test_file_written_during_the_check_is_not_broken(folder: Path) -> None:
    paths = run_paths(folder)
    found = verify_run(paths)
    assert next(found).state is State.COMPLETE
    # The second clip's file is rewritten before it is checked, and not recorded yet.
    zoom = paths.clip("zoom").result
    edit(lambda file: file.attrs.__setitem__("created", "later"))(zoom)
    hour_ago = time.time() - 3600  # the clock of its machine is behind
    os.utime(zoom, (hour_ago, hour_ago))
    second = next(found)
    assert (second.state, "written during the check" in second.reason) == (State.UNCHECKED, True)


def test_damage_inside_a_chunk_is_found_without_quick(folder: Path) -> None:
    paths = run_paths(folder)
    flip_a_byte_of_a_mask(paths.clip("late").result)
    assert next(verify_run(paths, quick=True)).state is State.COMPLETE
    # Also without a recorded digest.
    for ledger in (None, *ledgers(paths)):
        if ledger:
            lines = [json.loads(line) for line in ledger.read_text().splitlines()]
            ledger.write_text("".join(f"{json.dumps({**line, 'file_sha256': None})}\n" for line in lines))
        assert next(verify_run(paths)).state is State.BROKEN


@pytest.mark.slow
def test_file_that_hangs_hdf5_does_not_stop_the_check(folder: Path) -> None:
    paths = run_paths(folder)
    hanging = next(FINDINGS.glob("results/hang-*"))
    zoom = paths.clip("zoom").result
    good = Expected("zoom", read_run_json(paths)["config_hash"], None)
    with FileChecker(stall_seconds=10) as checker:
        for path, state in ((zoom, State.COMPLETE), (hanging, State.BROKEN), (zoom, State.COMPLETE)):
            verdict = checker.examine(path, good, quick=path == hanging)
            assert verdict.state is state
            assert ("did not return within 10 s" in verdict.reason) == (path == hanging)


def test_file_larger_than_memory_is_not_broken(folder: Path) -> None:
    """A file that needs more memory than this machine has does not affect the check of the next file."""
    paths = run_paths(folder)
    late, zoom = (paths.clip(clip_id).result for clip_id in DEMO_CLIPS)
    with h5py.File(late, "r+") as file:
        del file["tracks/xy"]
        file.create_dataset("tracks/xy", (10**9, 10**7, 2), "f4", chunks=(1, 1000, 2))  # larger than any address space
    config_hash = read_run_json(paths)["config_hash"]
    with FileChecker() as checker:
        verdict = checker.examine(late, Expected("late", config_hash, None), quick=True)
        assert (verdict.state, "not enough memory to read it" in verdict.reason) == (State.UNCHECKED, True)
        assert checker.examine(zoom, Expected("zoom", config_hash, None), quick=True).state is State.COMPLETE


def test_failed_and_pending_clips(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = run_paths(folder)
    for clip_id in DEMO_CLIPS:
        paths.clip(clip_id).result.unlink()
    paths.clip("zoom").failure.parent.mkdir()
    paths.clip("zoom").failure.write_text('{"class": "decode", "message": "too short"}')
    assert main([str(paths.root)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "late: pending",
        "zoom: failed: [decode] too short",
        f"{paths.root}: 1 failed, 1 pending",
    ]


def test_file_of_an_unlisted_clip(folder: Path) -> None:
    paths = run_paths(folder)
    unlisted = paths.results / "day1" / "unlisted.h5"
    unlisted.parent.mkdir()
    shutil.copy(paths.clip("late").result, unlisted)
    found = list(verify_run(paths))[-1]
    assert (found.clip_id, found.state) == ("day1/unlisted", State.UNLISTED)


def test_repair_makes_broken_files_pending(
    folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run_paths(folder)
    result = paths.clip("late").result
    for copies in (1, 2):
        truncate(result)
        broken = result.read_bytes()
        assert main([str(paths.root), "--repair"]) == 1
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("late: ")]
        assert line.startswith("late: broken: ")
        assert re.search(r"; moved to .*/quarantine/late(\.2)?\.h5, now pending$", line)
        assert not result.exists()
        kept = sorted((paths.root / "quarantine").iterdir())
        assert len(kept) == copies
        assert kept[-1].read_bytes() == broken or kept[0].read_bytes() == broken
        assert run_main(command) == 0
        assert main([str(paths.root)]) == 0


def test_repair_deletes_the_failure_record_of_a_broken_file(folder: Path, command: list[str]) -> None:
    paths = run_paths(folder)
    late = paths.clip("late")
    overwrite(late.result)
    late.report.data.unlink()
    assert run_main(command) == 1, "the report's part of this clip needs the broken file"
    assert late.failure.exists()
    assert main([str(paths.root), "--repair"]) == 1
    assert run_main(command) == 0
    assert main([str(paths.root)]) == 0


def test_not_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"clips": ', "run.json, line 1, column 11: not valid JSON: a value is missing or not valid"),
        ("[" * 100_000, "run.json: not valid JSON: lists and objects are nested too deeply"),
        ("[]", "expected the keys config_hash and clips"),
        ('{"config_hash": "0", "clips": {"a": 3}}', "clip 'a': got 3, expected an object"),
        ('{"config_hash": "0", "clips": {"/etc/precious": {}}}', "clip id '/etc/precious': expected a relative path"),
    ],
)
def test_damaged_run_json(
    content: str, reason: str, folder: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = run_paths(folder)
    paths.run_json.write_text(content)
    assert main([str(paths.root), "--repair"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(str(paths.run_json))
    assert "the file is damaged: delete it and run the command that created the folder again" in printed
    assert reason in printed
    paths.run_json.unlink()
    assert run_main(command) == 0, "the message recommends it"
    assert main([str(paths.root)]) == 0


def test_malformed_ledger_lines_are_ignored(folder: Path, command: list[str]) -> None:
    paths = run_paths(folder)
    (paths.ledgers / "a-folder.jsonl").mkdir()
    garbled = ['{"event": "done", "at": "2026-11-24"}', '{"event": "done", "at": "z", "clip_id": "late"}', "[]", "{"]
    (paths.ledgers / "garbled.jsonl").write_text("\n".join(garbled) + "\n")
    assert main([str(paths.root)]) == 0
    assert run_main(command) == 0
