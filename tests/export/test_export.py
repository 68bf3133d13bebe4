"""The export command: a run in every format, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import aot
from aot import run
from aot.export import __main__ as export
from tests.command_line import EMBEDDED
from tests.synthetic import moving_square, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two small videos."""
    root = tmp_path_factory.mktemp("run")
    for name in ("day1/a", "b"):
        write_video(root / "clips" / f"{name}.mp4", moving_square(6))
    (root / "clips" / "prompts.yaml").write_text(
        "clips: {'*': {objects: [{id: 1, name: square, box: [8, 20, 28, 40]}]}}"
    )
    options = [f"dataset.root='{root}/clips'", f"output.root='{root}/out'", "output.overlay=false"]
    assert run.main(["dataset=videos", *EMBEDDED, *options, "query_points.num_points=20"]) == 0
    (found,) = (root / "out" / "videos").iterdir()
    return found


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("davis", ["b/00000.png", "day1/a/00005.png"]),
        ("sa_v", ["b_auto.json", "day1/a_auto.json"]),
        ("coco", ["b.json", "day1/a.json"]),
        ("tapvid", ["b.pkl", "day1/a.pkl"]),
        ("npz", ["b.npz", "day1/a.npz"]),
        ("rerun", ["b.rrd", "day1/a.rrd"]),
        ("cotracker", ["b.npz", "day1/a.npz"]),
        ("atm", ["b.hdf5", "images/day1/a/agentview_5.png"]),
        ("wan_move", ["b.jpg", "day1/a_tracks.npy"]),
        ("general_flow", ["b/mask_obj.npy", "day1/a/kps_tracks.npy"]),
        ("tracegen", ["b/samples/00000.npz", "day1/a/images/00004.png"]),
        ("im2flow2act", ["episode_0/bbox/0", "episode_1/rgb_arr/5.0.0.0"]),
        ("shape_of_motion", ["bootstapir/b/00000_00005.npy", "masks/day1/a/00003.png"]),
    ],
)
def test_run_is_exported_in_every_format(
    folder: Path, form: str, written: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(folder), "--format", form]) == 0
    out = folder / "export" / form
    assert all((out / name).stat().st_size > 10 for name in written)
    assert f"2 of 2 clips exported to {out}" in capsys.readouterr().out
    assert not list(out.rglob("*.part"))


def test_clips_are_selected_by_pattern(folder: Path, tmp_path: Path) -> None:
    assert export.main([str(folder), "--format", "coco", "--clips", "day1/*", "--out", str(tmp_path)]) == 0
    assert [path.name for path in tmp_path.rglob("*.json")] == ["a.json"]
    assert json.loads((tmp_path / "day1" / "a.json").read_text())["categories"] == [{"id": 1, "name": "square"}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "coco", "--clips", "x*"], "it has 2 clips: b, day1/a"),
        (["--format", "coco", "--clips", "b", "typo"], "--clips typo: matches no clip of "),
        (["--format", "sa_v", "--stride", "0"], "--stride 0: expected 1 or more"),
        (["--format", "cotracker", "--num-frames", "0"], "--num-frames 0: expected 1 or more"),
        (["--format", "cotracker", "--size", "832"], "--size 832: expected WIDTHxHEIGHT in px"),
        (["--format", "coco", "--size", "8x8"], "--size: --format coco does not have this option"),
    ],
)
def test_invalid_arguments_are_refused(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main([str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_damaged_and_unfinished_clips_are_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    (copy / "clips").mkdir(parents=True)
    (copy / "run.json").write_bytes((folder / "run.json").read_bytes())
    (copy / "clips" / "b.h5").write_bytes((folder / "clips" / "b.h5").read_bytes())
    (copy / "clips" / "day1").mkdir()
    (copy / "clips" / "day1" / "a.h5").write_bytes(b"not HDF5")
    assert export.main([str(copy), "--format", "npz"]) == 1
    shown = capsys.readouterr()
    assert "day1/a.h5 is not an HDF5 file" in shown.err
    assert "1 of 2 clips" in shown.out
    assert export.main([str(copy), "--format", "coco"]) == 1
    assert (copy / "export" / "coco" / "b.json").exists(), "the other clips are written"
    (copy / "clips" / "day1" / "a.h5").unlink()
    assert export.main([str(copy), "--format", "npz"]) == 1
    assert "day1/a: not finished, so not exported" in capsys.readouterr().err


def test_frames_are_written_where_the_files_refer_to_them(folder: Path, tmp_path: Path) -> None:
    assert export.main([str(folder), "--format", "coco", "--with-frames", "--out", str(tmp_path)]) == 0
    for clip_id in ("b", "day1/a"):
        images = json.loads((tmp_path / f"{clip_id}.json").read_text())["images"]
        frames = list(aot.load(folder / "clips" / f"{clip_id}.h5", masks=False).frames())
        assert len(images) == len(frames) == 6
        for row, image in enumerate(images):
            written = np.asarray(Image.open(tmp_path / image["file_name"]), dtype=np.int64)
            assert np.argmin([np.abs(written - rgb).mean() for rgb in frames]) == row
    assert export.main([str(folder), "--format", "davis", "--with-frames", "--out", str(tmp_path)]) == 0
    for clip_id in ("b", "day1/a"):
        names = [sorted(path.stem for path in (tmp_path / at / clip_id).glob("*.*g")) for at in ("", "JPEGImages")]
        assert len(names[1]) == 6
        assert set(names[1]) <= set(names[0])


def test_folders_of_other_clips_are_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    (tmp_path / "b" / "old.npy").write_bytes(b"")
    assert export.main([str(folder), "--format", "general_flow", "--clips", "b", "--out", str(tmp_path)]) == 0
    assert [(tmp_path / "b" / name).exists() for name in ("c", "old.npy", "mask_obj.npy")] == [True, False, True]
