"""Which image of a folder is which frame."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aot.errors import DecodeError
from aot.images.frames import image_files
from tests.shared_data import CASES, needs_shared_cases


def folder_of(folder: Path, names: list[str]) -> Path:
    for name in random.Random(0).sample(names, len(names)):
        (folder / name).touch()
    return folder


def names_in(folder: Path, pattern: str | None = None) -> list[str]:
    return [file.name for file in image_files(folder, pattern)]


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png", "10.png"],
        ["frame_2_a.jpg", "frame_10_a.jpg"],
        ["frame-1.png", "frame-2.png", "frame-10.png"],
        ["0.5.png", "0.75.png", "1.0.png", "1.25.png", "1.5.png", "2.0.png", "10.25.png"],
        ["9.png", "9.5.png", "10.png"],
        ["1305031102.175304.png", "1305031102.211214.png", "1305031103.043227.png"],
        ["frame_-2.png", "frame_-1.png", "frame_0.png", "frame_1.png"],
        ["-1.5.png", "-1.25.png", "0.png", "1.25.png"],
        ["0,25.png", "0,5.png", "1,0.png", "10,75.png"],
        ["shot,9.png", "shot,10.png", "shot,11.png"],
        ["shot1.8.png", "shot1.9.png", "shot1.10.png", "shot1.11.png"],
        [f"shot1.{number}.png" for number in range(1, 12)],
        ["9_640x480.png", "10_640x480.png", "11_640x480.png"],
        ["1.JPG", "2.jpeg", "10.jpg"],
        ["a.jpg", "b.jpg", "c.png"],
    ],
    ids=lambda names: names[0],
)
def test_images_are_ordered_by_the_numbers_in_their_names(tmp_path: Path, names: list[str]) -> None:
    assert names_in(folder_of(tmp_path, names)) == names


FRAMES = ["00001.jpg", "00002.jpg", "00010.jpg"]


@pytest.mark.parametrize(
    ("others", "pattern"),
    [
        (["00001.png", "00002.png"], "*.png"),
        (["00002 (1).jpg"], "00002 (*).jpg"),
        (["poster.jpg"], "poster.jpg"),
        (["00001_depth.jpg", "00002_depth.jpg"], "*_depth.jpg"),
        (["right_00001.jpg", "right_00002.jpg"], "right_*.jpg"),
        (["cam2_00001.jpg"], "cam2_*.jpg"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_images_of_another_pattern_are_refused_until_one_is_chosen(
    tmp_path: Path, others: list[str], pattern: str
) -> None:
    folder = folder_of(tmp_path, [*FRAMES, *others])
    with pytest.raises(DecodeError, match=r"2 patterns: \*\.jpg \(3 images\)") as caught:
        image_files(folder)
    assert f"{pattern} (" in str(caught.value)
    assert """'dataset.pattern="*.jpg"'""" in str(caught.value)
    assert names_in(folder, "*.jpg") == FRAMES
    assert names_in(folder, pattern) == others


def test_pattern_with_wildcards(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [f"cam{camera}_{number}_rgb.png" for camera in (1, 2) for number in (9, 10)])
    with pytest.raises(DecodeError, match=r"cam1_\*_rgb\.png \(2 images\), cam2_\*_rgb\.png \(2 images\)"):
        image_files(folder)
    assert names_in(folder, "cam2*") == ["cam2_9_rgb.png", "cam2_10_rgb.png"]
    assert names_in(folder, "*") == ["cam1_9_rgb.png", "cam1_10_rgb.png", "cam2_9_rgb.png", "cam2_10_rgb.png"]
    with pytest.raises(DecodeError, match=r"no image has a name like dataset\.pattern=cam3\*; found cam1_"):
        image_files(folder, "cam3*")


def test_shots_are_not_seconds(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [f"shot{shot}.{number:04d}.png" for shot in (1, 2) for number in range(1, 12)])
    with pytest.raises(DecodeError, match=r"shot1\.\*\.png \(11 images\), shot2\.\*\.png \(11 images\)"):
        image_files(folder)


def test_same_number_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"01\.jpg and 1\.jpg have the same frame number; expected one file"):
        image_files(folder_of(tmp_path, ["01.jpg", "1.jpg", "2.jpg"]))


def test_files_of_systems_and_tools_are_ignored(tmp_path: Path) -> None:
    left = ["._00001.jpg", ".DS_Store", "Thumbs.db", ".hidden.png", "notes.txt"]
    assert names_in(folder_of(tmp_path, [*FRAMES, *left])) == FRAMES


@needs_shared_cases
@pytest.mark.parametrize(("name", "expected"), [("decimals", list(range(8))), ("neg", [-2, -1, 0, 1, 2])])
def test_shared_case(name: str, expected: list[int]) -> None:
    files = image_files(CASES / "08-decimal-frame-names" / name)
    numbers = [float(file.stem.removeprefix("frame_")) for file in files]
    assert numbers == sorted(numbers)
    assert len(files) == len(expected)
