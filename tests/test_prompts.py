"""The command `python -m aot.prompts`."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot import prompts
from aot.manifest.read import load_manifest
from aot.manifest.schema import RleEntry
from tests.decoding.made_videos import write_streams
from tests.manifest.samples import EVERY_KIND, write
from tests.synthetic import moving_square, write_video


def test_schema_and_check_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prompts.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["$defs"]["ObjectEntry"]["properties"]) == {
        "id", "name", "frame", "box", "points", "labels", "mask", "mask_id", "query_points", "text", "count",
        "min_score", "frames", "score", "model",
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


class TestDetect:
    """Objects of two videos, found by words."""

    SQUARE = "{id: 1, box: [8, 20, 28, 40]}"

    @pytest.fixture
    def root(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        root = tmp_path / "clips"
        write_video(root / "a.mp4", moving_square(4))
        write_video(root / "day1" / "b.mp4", moving_square(6))
        option = tmp_path / "options" / "detector" / "square.yaml"
        option.parent.mkdir(parents=True)
        option.write_text("# Bright squares.\n_target_: tests.fakes.SquareDetector\nmasks: false\nfirst_frame: 0\n")
        monkeypatch.chdir(tmp_path)
        return root

    def detect(self, *arguments: str, detector: str = "detector=square") -> int:
        chosen = [detector] if detector else []
        return prompts.main(
            ["detect", "dataset=videos", "dataset.root=clips", *chosen, "--config-dir", "options", *arguments]
        )

    def test_boxes_are_added_to_the_manifest(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        manifest = root / "prompts.yaml"
        manifest.write_text(f"clips:\n  a:   # by hand\n    objects: [{self.SQUARE}]\n")
        assert self.detect("--text", "square") == 0
        out = capsys.readouterr().out
        assert 'a: 2 "square" 0.90 (frame 0)\n' in out
        assert "clips/prompts.yaml: 2 objects added in 2 clips" in out
        assert "review them: python -m aot.prompt dataset=videos dataset.root=clips detector=square\n" in out
        text = manifest.read_text()
        assert "a:   # by hand" in text
        clips = load_manifest(manifest).clips
        assert [(item.id, item.score) for item in clips["a"].objects] == [(1, None), (2, 0.9)]
        (found,) = clips["day1/b"].objects
        assert (found.id, found.frame, found.text, found.model) == (1, 0, "square", "squares")
        assert found.box == pytest.approx((8, 20, 28, 40), abs=1)

    def test_the_same_command_finds_nothing_twice(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.detect("--text", "square", "--out", "found.json") == 0
        before = (root.parent / "found.json").read_text()
        capsys.readouterr()
        assert self.detect("--text", "square", "--out", "found.json") == 0
        out = capsys.readouterr().out
        assert 'a: "square" is in the manifest already\n' in out
        assert "found.json: 0 objects added in 2 clips" in out
        assert "dataset.root=clips detector=square dataset.prompts=found.json\n" in out
        assert (root.parent / "found.json").read_text() == before
        assert not (root / "prompts.yaml").exists()

    def test_what_is_not_found_is_reported_and_the_rest_written(
        self, root: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (root / "broken.mp4").write_text("not a video")
        assert self.detect("--text", "hat", "--text", "square", "--frames", "2", "5", "--min-score", "0.2") == 1
        out = capsys.readouterr().out
        assert (
            'a: 1 "square" 0.90 (frame 2); object 1: "hat" not found on frame 2: the best score is 0.100, expected at '
            "least 0.2;"
        ) in out
        assert 'object 1: "hat" not found on frames 2, 5: the best score is 0.100' in out
        assert "broken: " in out
        assert "2 objects added in 3 clips; in 3 clips not everything was found" in out

    def test_a_pattern_stays_for_the_other_clips(self, root: Path) -> None:
        (root / "prompts.yaml").write_text(
            f"clips: {{'*': {{objects: [{self.SQUARE}, {{id: 2, text: hat, count: all}}]}}}}\n"
        )
        assert self.detect("--text", "square", "dataset.include=[a]") == 0
        clips = load_manifest(root / "prompts.yaml").clips
        assert list(clips) == ["*", "a"]
        assert [(item.id, item.text) for item in clips["a"].objects] == [(1, None), (2, "hat"), (22, "square")]

    def test_masks_are_written_as_run_lengths(self, root: Path) -> None:
        assert self.detect("--text", "square", "detector.masks=true") == 0
        (item,) = load_manifest(root / "prompts.yaml").clips["a"].objects
        assert item.box is None
        assert isinstance(item.mask, RleEntry)
        assert item.mask.size == (64, 96)
        assert prompts.main(["check", str(root / "prompts.yaml"), "--root", str(root)]) == 0

    @pytest.mark.parametrize(
        ("arguments", "detector", "message"),
        [
            (["--text", " "], "detector=square", "--text: expected words that describe the object"),
            (["--text", "a", "--text", "a"], "detector=square", "--text: expected different texts"),
            (["--text", "a", "--count", "21"], "detector=square", "21: expected 1 to 20, or all"),
            (["--text", "a", "--min-score", "30"], "detector=square", "30: expected a number from 0 to 1"),
            (["--text", "a", "--frames", "3", "3"], "detector=square", "--frames: expected different frames"),
            (["--text", "a"], "detector=none", "detector=none finds nothing; write detector=grounding_dino"),
            (["--text", "a", "frame_intervall=2"], "detector=square", "did you mean frame_interval"),
            (["--text", "a", "--frame", "2", "--sum"], "detector=square", "--sum: no such option"),
        ],
    )
    def test_wrong_arguments_start_nothing(
        self, root: Path, arguments: list[str], detector: str, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with suppress(SystemExit):  # of the parser
            assert self.detect(*arguments, detector=detector) == 2
        assert message in capsys.readouterr().err
        assert not (root / "prompts.yaml").exists()

    def test_grounding_dino_is_the_default(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.detect("--text", "mug", detector="") == 2
        error = capsys.readouterr().err
        assert "download grounding_dino" in error or "detector=grounding_dino needs the library transformers" in error
