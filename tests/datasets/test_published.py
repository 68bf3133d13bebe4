"""Published datasets have default folders; the message for a missing one gives the path and the download page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.arguments import parse_command
from aot.compose import compose_jobs
from aot.config import check_config
from aot.datasets.published import DOWNLOAD_PAGES
from aot.run import main

EMBEDDED = ["segmenter=grabcut", "tracker=lucas_kanade", "launcher=inline", "output.overlay=false"]
DEFAULT_FOLDERS = [
    ("davis", "root", "DAVIS"),
    ("davis_2016", "root", "DAVIS"),
    ("youtube_vos", "root", "YouTube-VOS"),
    ("lvos", "root", "LVOS"),
    ("mose", "root", "MOSE"),
    ("sa_v", "root", "sav_train"),
    ("sa_v_val", "root", "sav_val"),
    ("tapvid", "path", "tapvid_davis"),
]


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AOT_DATA", raising=False)
    return tmp_path


@pytest.mark.parametrize(("option", "key", "folder"), DEFAULT_FOLDERS)
def test_missing_dataset_is_reported_with_path_and_download_page(
    option: str, key: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"dataset={option}", *EMBEDDED]) == 2
    (message, *_) = lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2, "one message, and that nothing was started"
    assert message.startswith(f"dataset.{key}={tmp_path}/data/{folder} does not exist; expected ")
    assert f"Download it from {DOWNLOAD_PAGES[folder]}, or set dataset.{key}=PATH" in message
    assert not list(tmp_path.iterdir()), "nothing was written"


@pytest.mark.parametrize(("option", "key", "folder"), DEFAULT_FOLDERS)
def test_empty_folder_is_reported_with_download_page(
    option: str, key: str, folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data" / folder).mkdir(parents=True)
    assert main([f"dataset={option}", *EMBEDDED]) == 2
    message = capsys.readouterr().err
    assert f"dataset.{key}={tmp_path}/data/{folder} is an empty folder; expected " in message
    assert DOWNLOAD_PAGES[folder] in message


def test_aot_data_replaces_the_folder_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AOT_DATA", str(tmp_path / "shared"))
    assert main(["dataset=sa_v_val", "dataset.subset=test", *EMBEDDED]) == 2
    assert f"dataset.root={tmp_path}/shared/sav_test does not exist" in capsys.readouterr().err


def test_missing_weights_are_reported_in_the_same_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset=davis"]) == 2
    segmenter, tracker, dataset, last = capsys.readouterr().err.splitlines()
    assert segmenter.startswith("segmenter.checkpoint: no weights at ")
    assert tracker.startswith("tracker.checkpoint: no weights at ")
    assert dataset.startswith(f"dataset.root={tmp_path}/data/DAVIS does not exist")
    assert last.startswith("Nothing was started.")


def test_other_root_without_the_layout_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere" / "videos").mkdir(parents=True)
    for root in ("missing", "elsewhere"):
        assert main(["dataset=davis", f"dataset.root={root}", *EMBEDDED]) == 2
    missing, _, elsewhere, _ = capsys.readouterr().err.splitlines()
    assert missing.startswith(f"dataset.root={tmp_path}/missing does not exist")
    assert missing.endswith("; set dataset.root=PATH"), "only a path with a published name has a download page"
    assert elsewhere.startswith("dataset.root=elsewhere: no folder elsewhere/JPEGImages/480p")


def write_davis(root: Path) -> None:
    frames, masks = root / "JPEGImages/480p/square", root / "Annotations/480p/square"
    for folder in (frames, masks, root / "ImageSets/2017"):
        folder.mkdir(parents=True)
    for t in range(3):
        pixels = np.zeros((48, 64), np.uint8)
        pixels[10:30, 10 + t : 30 + t] = 1
        Image.fromarray(pixels * 200).save(frames / f"{t:05d}.jpg")
        Image.fromarray(pixels).save(masks / f"{t:05d}.png")
    (root / "ImageSets/2017/val.txt").write_text("square\n")


def test_dataset_in_its_default_folder_runs_as_typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_davis(tmp_path / "data" / "DAVIS")
    assert main(["dataset=davis", *EMBEDDED, "output.report=false"]) == 0, capsys.readouterr().err
    assert [path.stem for path in tmp_path.glob("outputs/davis/*/clips/*.h5")] == ["square"]


def test_default_folder_and_given_root_have_the_same_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def hash_of(*arguments: str) -> str:
        jobs, _ = compose_jobs(parse_command(["dataset=davis", *EMBEDDED, *arguments]))
        return check_config(jobs[0].values, jobs[0].choices).hash

    first = hash_of("dataset.root=/elsewhere/DAVIS")
    assert hash_of() == first
    monkeypatch.setenv("AOT_DATA", "/shared")
    assert hash_of() == first


@pytest.mark.parametrize(
    ("folders", "arguments", "message"),
    [
        (
            ["data/DAVIS/JPEGImages/480p", "data/DAVIS/Annotations/480p"],
            ["dataset=davis", "dataset.subset=foo"],
            "dataset.subset=foo does not exist in data/DAVIS; expected one of train, val",
        ),
        (
            ["data/LVOS/train/JPEGImages", "data/LVOS/valid/JPEGImages", "data/LVOS/notes"],
            ["dataset=lvos", "dataset.subset=foo"],
            "dataset.subset=foo does not exist in data/LVOS; expected one of train, valid",
        ),
        (
            ["data/sav_test"],
            ["dataset=sa_v_val", "dataset.subset=foo"],
            "dataset.subset=foo: no folder data/sav_foo; expected test according to the folders in data, or another "
            "dataset.root",
        ),
        (
            ["data/DAVIS/JPEGImages/480p", "data/DAVIS/JPEGImages/Full-Resolution"],
            ["dataset=davis", "dataset.images=JPEGImages/foo"],
            "dataset.root=data/DAVIS: no folder data/DAVIS/JPEGImages/foo; expected one folder of frames per clip in "
            "it: check dataset.root and dataset.images; data/DAVIS/JPEGImages contains 480p, Full-Resolution",
        ),
        (
            ["data/DAVIS/JPEGImages/480p", "data/DAVIS/Annotations/480p"],
            ["dataset=davis", "dataset.annotations=Annotations/foo"],
            "dataset.root=data/DAVIS: no folder data/DAVIS/Annotations/foo; expected one folder of masks per clip in "
            "it, or prompts from a manifest (dataset.prompts=FILE): check dataset.root and dataset.annotations; "
            "data/DAVIS/Annotations contains 480p",
        ),
    ],
)
@pytest.mark.parametrize("sweep", [[], ["-m", "frame_interval=1,2"]], ids=["run", "sweep"])
def test_unknown_names_in_a_dataset_are_reported_once_with_the_existing_ones(
    folders: list[str],
    arguments: list[str],
    message: str,
    sweep: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    if "data/DAVIS/JPEGImages/480p" in folders:
        (tmp_path / "data/DAVIS/ImageSets/2017").mkdir(parents=True)
        for name in ("train", "val"):
            (tmp_path / f"data/DAVIS/ImageSets/2017/{name}.txt").write_text("square\n")
    assert main([*arguments, *EMBEDDED, *sweep]) == 2
    found, nothing = capsys.readouterr().err.splitlines()
    assert found == message
    assert nothing.startswith("Nothing was started.")
    assert not (tmp_path / "outputs").exists()
