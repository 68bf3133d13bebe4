"""The start and the end of a command: outputs that cannot be written, clips that cannot be read, the last lines."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aot.checkpoints.__main__ import main as checkpoints
from aot.evaluate.__main__ import main as evaluate
from aot.export.__main__ import main as export
from aot.prompt.__main__ import main as prompt
from aot.prompts import main as prompts
from aot.report.__main__ import main as report
from aot.run import main
from aot.sweep.__main__ import main as sweep
from tests.command_line import EMBEDDED, VIDEOS, child_environment, only_run, run_in
from tests.synthetic import moving_square, write_video

BOX = "dataset.box=[8,20,28,40]"
VIDEO = ("dataset=video", BOX, *EMBEDDED, "output.report=false", "output.overlay=false")
NOTHING = "Nothing was started."


@pytest.fixture(scope="module")
def finished(finished_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with two videos, a finished run of both (outputs) and a sweep (swept)."""
    folder = tmp_path_factory.mktemp("finished") / "copy"
    shutil.copytree(finished_videos, folder)
    assert run_in(folder, *VIDEOS, "output.root=swept", "-m", "frame_interval=1,2") == 0
    (folder / "file").write_text("not a folder")
    return folder


@pytest.fixture
def work(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def the_run() -> str:
    return str(only_run(Path("outputs")))


LONG = "a" * 300
UNUSABLE = {
    "file/below": "cannot be written, because file is a file",
    "/proc/aot": "cannot be written, because /proc does not accept new files",
    LONG: "has a name of 300 bytes, and at most 255 are possible",
}
COMMANDS: dict[str, tuple[str, Callable[[str], int]]] = {
    "run": ("output.root", lambda path: main([*VIDEO, "dataset.path=clips/a.mp4", f"output.root={path}"])),
    "sweep of runs": (
        "output.root",
        lambda path: main([*VIDEO, "dataset.path=clips/a.mp4", "-m", "frame_interval=1,2", f"output.root={path}"]),
    ),
    "dry run": (
        "output.root",
        lambda path: main([*VIDEO, "dataset.path=clips/a.mp4", f"output.root={path}", "dry_run=true"]),
    ),
    "demo": ("dataset.root", lambda path: main(["dataset=demo", *EMBEDDED, f"dataset.root={path}"])),
    "export": ("--out", lambda path: export([the_run(), "--format", "npz", "--out", path])),
    "evaluate": ("--out", lambda path: evaluate([the_run(), "--out", path])),
    "import": ("--out", lambda path: prompts(["import", "none.json", "--format", "coco", "--out", path])),
    "download": ("--folder", lambda path: checkpoints(["download", "sam2.1_hiera_tiny", "--folder", path])),
    "prompt page": (
        "dataset.prompts",
        lambda path: prompt(["dataset=videos", "dataset.root=clips", "segmenter=none", f"dataset.prompts={path}"]),
    ),
}


@pytest.mark.parametrize("path", UNUSABLE, ids=["below a file", "not writable", "long name"])
@pytest.mark.parametrize("command", COMMANDS)
def test_unusable_output_is_reported_once_before_anything_starts(
    work: Path, command: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option, call = COMMANDS[command]
    before = sorted(work.rglob("*"))
    assert call(path) == 2
    printed = capsys.readouterr()
    message, nothing = printed.err.splitlines()
    assert message.startswith(f"{option}={path} {UNUSABLE[path]}; expected a f")
    assert f" that can be written: choose another one with {option}=F" in message
    assert nothing.startswith(NOTHING)
    assert printed.out == ""
    assert sorted(work.rglob("*")) == before


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("import", "prompt page", "demo")])
def test_file_instead_of_the_output_folder_is_refused(
    work: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    option, call = COMMANDS[command]
    assert call("file") == 2
    assert f"{option}=file is a file; expected a folder that can be written" in capsys.readouterr().err


def test_report_and_sweep_name_their_own_folder(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (swept,) = (work / "swept" / "videos").iterdir()
    for call, root in ((report, only_run(Path("outputs"))), (sweep, swept)):
        page = root / "report"
        page.write_text("in the way")
        assert call([str(root)]) == 2
        message, nothing = capsys.readouterr().err.splitlines()
        assert message.startswith(f"{page} is a file; expected a folder that can be written: make its folder writable")
        assert nothing == NOTHING
        page.unlink()


def test_unusable_folder_of_one_run_names_the_run(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*VIDEO, "dataset.path=clips/a.mp4", "output.root=mine"]
    assert main(command) == 0
    (root,) = Path("mine/video").iterdir()
    root.rename("moved")
    root.write_text("not a folder")
    capsys.readouterr()
    assert main(command) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{root} was not started: {root} is a file; choose another folder with output.root=FOLDER",
        NOTHING,
    ]


def broken(folder: Path) -> None:
    """Sources in which no frame can be found."""
    for name in ("empty", "notes"):
        (folder / name).mkdir()
    (folder / "notes" / "a.txt").write_text("notes")
    (folder / "fake.mp4").write_text("not a video")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset.path=empty"], "dataset.path=empty is a folder without images; expected a video file"),
        (["dataset.path=notes"], "or use dataset=videos dataset.root=notes for a folder of videos"),
        (["dataset.path=fake.mp4"], "fake.mp4 (11 bytes): cannot be read as a video: "),
        (
            ["dataset.path=a.mp4", "dataset.start_seconds=100"],
            "a.mp4: no frame from start_seconds=100 on; its 6 frames are shown from 0.000 s to 0.500 s: choose a range",
        ),
        (["dataset.path=a.mp4", "dataset.end_seconds=-1"], "a.mp4: no frame before end_seconds=-1; its 6 frames"),
        (["dataset.path=one.mp4", "dataset.start_seconds=9"], "; its only frame is shown at 0.000 s: choose a range"),
        (
            ["dataset.path=a.mp4", "dataset.start_seconds=2", "dataset.end_seconds=1"],
            "dataset.start_seconds=2 must be below dataset.end_seconds=1; change one of them",
        ),
    ],
)
def test_clip_without_frames_is_refused_before_anything_starts(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path)
    write_video(tmp_path / "a.mp4", moving_square(6))
    write_video(tmp_path / "one.mp4", moving_square(1))
    assert run_in(tmp_path, *VIDEO, *arguments) == 2
    printed = capsys.readouterr()
    found, nothing = printed.err.splitlines()
    assert message in found
    assert nothing.startswith(NOTHING)
    assert printed.out == ""
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("source", ["fake.mp4", "cut.mp4", "frames"])
def test_messages_name_the_source_as_it_was_typed(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken(tmp_path)
    content = write_video(tmp_path / "cut.mp4", moving_square(6)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0.png").write_bytes(b"not an image")
    for path in (source, str(tmp_path / source)):
        assert run_in(tmp_path, *VIDEO, f"dataset.path={path}") == 2
        message = capsys.readouterr().err.splitlines()[0]
        assert message.startswith(path)
        assert (str(tmp_path) in message) == (path != source)


def videos(folder: Path, *names: str) -> list[str]:
    """A dataset of videos, of which those named `bad…` are none; returns the arguments."""
    for name in names:
        (folder / "clips").mkdir(exist_ok=True)
        if name.startswith("bad"):
            (folder / "clips" / f"{name}.mp4").write_text("not a video")
        else:
            write_video(folder / "clips" / f"{name}.mp4", moving_square(6))
    (folder / "clips" / "prompts.yaml").write_text("clips: {'*': {objects: [{id: 1, box: [8, 20, 28, 40]}]}}\n")
    return ["dataset=videos", "dataset.root=clips", *EMBEDDED]


def test_one_bad_clip_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = videos(tmp_path, "bad1", "bad2", "c")
    assert run_in(tmp_path, *arguments) == 1
    printed = capsys.readouterr().out
    assert "3 clips: 1 done, 2 failed" in printed
    root = only_run(tmp_path / "outputs").relative_to(tmp_path)
    files = "clips/*.h5 (aot.load), overlays/*.mp4, summary.csv, failures/*.json, report/index.html"
    assert printed.splitlines()[-1] == f"results in {root}: {files}"


@pytest.mark.parametrize(
    ("number", "named"), [(2, "bad10, bad11"), (25, "bad10, bad11, bad12, bad13, bad14, …")], ids=["two", "many"]
)
def test_only_bad_clips_start_nothing(
    number: int, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_in(tmp_path, *videos(tmp_path, *(f"bad{10 + i}" for i in range(number)))) == 2
    message, nothing = capsys.readouterr().err.splitlines()
    start = f"none of the {number} clips ({named}) can be read; the first one: clips/bad10.mp4 (11 bytes): cannot"
    assert message.startswith(start)
    assert nothing.startswith(NOTHING)
    assert not (tmp_path / "outputs").exists()


def test_dry_run_names_the_clips_without_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = videos(tmp_path, "a", "b", "c")
    (tmp_path / "clips" / "prompts.yaml").write_text("clips: {b: {objects: [{id: 1, box: [8, 20, 28, 40]}]}}\n")
    for more in (["dry_run=true"], []):
        assert run_in(tmp_path, *arguments, *more) == 0
        assert "\nskipped without a prompt: 2 clips (a, c)\n" in capsys.readouterr().out


def frames_dataset(folder: Path) -> list[str]:
    """A DAVIS of three clips, of which one has no frames and one has no masks; returns the arguments."""
    root = folder / "davis"
    mask = np.zeros((64, 96), dtype=np.uint8)
    mask[20:40, 8:28] = 1
    for name in ("fine", "no_frames", "no_masks"):
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / name).mkdir(parents=True)
        if name != "no_frames":
            for number, frame in enumerate(moving_square(3)):
                Image.fromarray(frame).save(root / "JPEGImages" / "480p" / name / f"{number:05d}.png")
        if name != "no_masks":
            Image.fromarray(mask).save(root / "Annotations" / "480p" / name / "00000.png")
    return ["dataset=davis", "dataset.root=davis", "dataset.split=null", *EMBEDDED, "output.overlay=false"]


def test_clips_with_empty_folders_are_skipped_with_their_reasons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = frames_dataset(tmp_path)
    for more, code in ((["dry_run=true"], 0), ([], 1)):
        assert run_in(tmp_path, *arguments, *more) == code
        lines = capsys.readouterr().out.splitlines()
        start = lines.index("skipped because they cannot be used: 2 clips")
        assert "no_frames" in lines[start + 1]
        assert "no_masks: found no PNG, expected PNGs named" in lines[start + 2]
    assert "1 clip: 1 done" in lines
    assert run_in(tmp_path, *arguments, "dataset.include=[fine]") == 0, "the others are not selected"
    assert run_in(tmp_path, *arguments, "dataset.include=[no_masks]") == 2
    message, nothing = capsys.readouterr().err.splitlines()[-2:]
    assert "no_masks: found no PNG" in message
    assert nothing.startswith(NOTHING)


def test_run_without_results_does_not_claim_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = videos(tmp_path, "a")
    video = tmp_path / "clips" / "a.mp4"
    content = bytearray(video.read_bytes())
    start = content.index(b"mdat") + 4
    content[start + 1000 : start + 3000] = bytes(2000)  # the header and the first frame are intact
    video.write_bytes(content)
    assert run_in(tmp_path, *arguments) == 1
    root = only_run(tmp_path / "outputs").relative_to(tmp_path)
    files = "summary.csv, failures/*.json, logs/*.log, report/index.html"
    assert capsys.readouterr().out.splitlines()[-2:] == ["1 clip: 1 failed", f"no results in {root}, only {files}"]
    assert all(list((tmp_path / root).glob(name)) for name in files.split(", "))
    assert run_in(tmp_path, *arguments) == 1
    assert "1 failed before (retry it with " in capsys.readouterr().out


def test_the_command_reports_an_unusable_output_without_a_traceback(work: Path) -> None:
    command = [sys.executable, "-m", "aot.run", "dataset=demo", *EMBEDDED, f"output.root={LONG}"]
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, env=child_environment(), check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("command", ["list", "verify"])
def test_folder_of_weights_with_a_long_name_is_refused(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoints([command, "--folder", f"{LONG}/below"]) == 2
    assert capsys.readouterr().err.startswith(f"--folder={LONG}/below cannot be written, because {LONG} has a name of")
