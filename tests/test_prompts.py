"""The command `python -m aot.prompts`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot import prompts
from tests.decoding.made_videos import write_streams
from tests.manifest.samples import EVERY_KIND, write
from tests.synthetic import moving_square, write_video


def test_schema_and_check_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["$defs"]["ObjectEntry"]["properties"]) == {
        "id", "name", "frame", "box", "points", "labels", "mask", "mask_id", "query_points",
    }  # fmt: skip
    assert "replace" in schema["$defs"]["ObjectEntry"]["properties"]["query_points"]["description"]
    assert prompts.main(["check", str(write(tmp_path, EVERY_KIND))]) == 2
    assert "object 2: mask" in capsys.readouterr().err
    (tmp_path / "masks").mkdir()
    Image.new("L", (4, 4), 255).save(tmp_path / "masks" / "teapot_2.png")
    assert prompts.main(["check", str(write(tmp_path, EVERY_KIND))]) == 0
    assert "frame numbers and coordinates were not compared with the videos" in capsys.readouterr().out
    assert prompts.main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml does not exist; expected a YAML or JSON file" in capsys.readouterr().err


def check_with_video(tmp_path: Path, objects: str, clip_id: str = "day1/teapot") -> int:
    """The exit code of checking one entry against a video of 96x64 px and 4 frames."""
    if not (tmp_path / "day1").exists():
        write_video(tmp_path / "day1" / "teapot.mp4", moving_square(4))
        write_video(tmp_path / "pan.mp4", moving_square(2))
        Image.fromarray(np.ones((6, 8), np.uint8)).save(tmp_path / "small.png")
    manifest = write(tmp_path, f"clips: {{{clip_id}: {{objects: {objects}}}}}")
    return prompts.main(["check", str(manifest), "--root", str(tmp_path)])


def test_check_with_videos_reports_what_was_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_with_video(tmp_path, "[{id: 1, frame: 3, box: [1, 2, 96, 64]}]") == 0
    out = capsys.readouterr().out
    assert f"compared with 1 video below {tmp_path}: clip ids, frame numbers, positions and sizes of masks" in out
    assert "1 video without a prompt" in out
    assert "not checked: whether the videos can be decoded to their end" in out
    assert prompts.main(["check", str(tmp_path / "prompts.yaml")]) == 0
    assert "were not compared with the videos; --root FOLDER does this" in capsys.readouterr().out


def test_check_with_videos_reports_every_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objects = (
        "[{id: 1, frame: 4, box: [1, 2, 9, 9]}, {id: 2, points: [[96, 5]]}, {id: 3, box: [1, 2, 9, 9], query_points: "
        "[[9, 1, 1]]}, {id: 4, mask: small.png}, {id: 6, mask: none.png}, {id: 5, box: [1, 2, 9, 9]}, "
        "{id: 5, frame: 7, box: [1, 2, 9, 9]}]"
    )
    assert check_with_video(tmp_path, objects) == 2
    message = capsys.readouterr().err
    assert message.splitlines()[0].endswith("prompts.yaml: 6 errors")
    for expected in (
        "clip 'day1/teapot': object 1: its prompt on frame 4 is beyond the end of the video; expected 0 to 3",
        "object 2, frame 0: the point (96, 5) is outside the frame of 96x64 px",
        "object 3: its query point on frame 9 is beyond the end",
        f"object 6: mask {tmp_path}/none.png: no such file",
        f"object 4, frame 0: mask {tmp_path}/small.png is 8x6 px, expected 96x64",
        "object 5: its prompt on frame 7 is beyond the end",
    ):
        assert expected in message


def test_check_with_another_video_stream(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_streams(tmp_path / "a.mp4", [((64, 48), "yuv420p", range(5)), ((32, 16), "yuv420p", range(3))])
    manifest = tmp_path / "prompts.yaml"
    manifest.write_text("clips: {a: {objects: [{id: 1, frame: 4, points: [[60, 40]]}]}}")
    assert prompts.main(["check", str(manifest), "--root", str(tmp_path)]) == 0
    assert prompts.main(["check", str(manifest), "--root", str(tmp_path), "--stream", "1"]) == 2
    assert "frame 4" in capsys.readouterr().err
    assert prompts.main(["check", str(manifest), "--root", str(tmp_path), "--stream", "2"]) == 2
    assert "has no video stream 2" in capsys.readouterr().err


def test_check_with_videos_suggests_the_nearest_clip_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check_with_video(tmp_path, "[{id: 1, box: [1, 2, 9, 9]}]", "day1/teapod") == 2
    assert "clip 'day1/teapod' is not in the dataset; did you mean day1/teapot?" in capsys.readouterr().err
    (tmp_path / "day1" / "teapot.mp4").write_bytes(b"damaged")
    assert check_with_video(tmp_path, "[{id: 1, box: [1, 2, 9, 9]}]") == 2
    assert "clip 'day1/teapot': " in capsys.readouterr().err
    assert prompts.main(["check", str(tmp_path / "prompts.yaml"), "--root", str(tmp_path / "none")]) == 2
    assert "none is not a folder; expected the folder of the videos" in capsys.readouterr().err


def write_images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (96, 64)).save(folder / name)


def test_check_with_folders_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "frames" / "day1" / "ep", "0.png", "1.png", "2.png")
    write_images(tmp_path / "frames" / "pan", "0.png")
    manifest = write(tmp_path, "clips: {day1/ep: {objects: [{id: 1, frame: 2, box: [1, 2, 9, 9]}]}}")
    check = ["check", str(manifest), "--root", str(tmp_path / "frames")]
    assert prompts.main(check) == 0
    out = capsys.readouterr().out
    assert f"compared with 1 folder of frames below {tmp_path / 'frames'}: clip ids, frame numbers" in out
    assert "1 folder of frames without a prompt" in out
    write(tmp_path, "clips: {day1/ep: {objects: [{id: 1, frame: 3, box: [1, 2, 9, 9]}]}, ep: {objects: []}}")
    assert prompts.main(check) == 2
    message = capsys.readouterr().err
    assert "frame 3 is beyond the end of the video; expected 0 to 2" in message
    assert "clip 'ep'" in message
    assert prompts.main([*check[:-1], str(tmp_path / "frames" / "pan")]) == 2
    assert "pan contains no video and no folder of frames; expected the folder above them" in capsys.readouterr().err


def test_check_with_the_frames_of_one_pattern(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_images(tmp_path / "frames" / "a", "0_color.png", "1_color.png", "0_depth.png", "1_depth.png", "2_depth.png")
    manifest = write(tmp_path, "clips: {a: {objects: [{id: 1, frame: 2, box: [1, 2, 9, 9]}]}}")
    check = ["check", str(manifest), "--root", str(tmp_path / "frames")]
    assert prompts.main(check) == 2
    assert "names of 2 patterns: *_depth.png (3 images), *_color.png (2 images)" in capsys.readouterr().err
    assert prompts.main([*check, "--pattern", "*_depth.png"]) == 0
    assert prompts.main([*check, "--pattern", "*_color.png"]) == 2
    assert "frame 2 is beyond the end" in capsys.readouterr().err
