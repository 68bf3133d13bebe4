"""Runs that were whole, and what has happened to them since."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from aot.launching.plan import read_run_json
from aot.paths import RunPaths
from aot.run import main as run_main
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
        (truncate, "not a whole result file"),
        (empty, "not a whole result file"),
        (take_the_others, "clip_id is 'zoom', expected 'late'"),
        (edit(lambda file: file.attrs.__setitem__("config_hash", "0")), "config_hash is '0'"),
        (edit(lambda file: file.attrs.__setitem__("schema", "aot/0")), "schema 'aot/0', expected 'aot/1'"),
        (edit(lambda file: file.attrs.__delitem__("seconds")), "attributes seconds are missing"),
        (edit(lambda file: file.__delitem__("masks")), "not a whole result file"),
        (edit(shorten_the_tracks), "not a whole result file"),
        (edit(drop_a_frame), "1 are missing, and 1 are there that nothing asks for"),
        (edit(lambda file: file["frames/index"].__setitem__(-1, 900)), "not within the 48 frames"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_file_that_is_not_what_it_was(damage: Callable[[Path], None], reason: str, folder: Path) -> None:
    paths = run_paths(folder)
    damage(paths.clip("late").result)
    for quick in (True, False):
        late, zoom = verify_run(paths, quick=quick)
        assert late.state is State.BROKEN
        assert (reason if quick else "its SHA-256 is not the one in the ledger") in late.reason
        assert str(paths.clip("late").result) in late.reason
        assert zoom.state is State.WHOLE


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
    good = Expected("zoom", read_run_json(paths)["config_hash"], None)
    with FileChecker(stall_seconds=10) as checker:
        assert checker.examine(paths.clip("zoom").result, good, quick=False) == ""
        assert "has not come back from it for 10 s" in checker.examine(hanging, good, quick=True)
        assert checker.examine(paths.clip("zoom").result, good, quick=False) == ""


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
        kept = sorted((paths.root / "set_aside").iterdir())
        assert len(kept) == copies
        assert kept[-1].read_bytes() == broken or kept[0].read_bytes() == broken
        assert run_main(command(folder)) == 0
        assert main([str(paths.root)]) == 0


def test_no_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
