"""The main job from the command line: exit codes, isolation of failures, resuming, sweeps."""

from __future__ import annotations

import csv
import json
import os
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import aot
from aot.launching.base import Wait
from aot.launching.local import LocalLauncher
from aot.launching.plan import Plan
from aot.run import main
from aot.runs.task import ClipTask
from tests.command_line import run_in
from tests.synthetic import moving_square, write_video

ENTRY = "{objects: [{id: 1, name: square, box: [8, 20, 28, 40]}]}"
PROMPTS = f"clips:\n  '*': {ENTRY}\n"
FAST = ["segmenter=grabcut", "tracker=lucas_kanade", "query_points.num_points=20", "launcher=inline"]
LOCAL = "launcher=local"
COMMAND = ["dataset=videos", "dataset.root='my clips'", *FAST]


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in a tree, one of them with spaces and special characters in its name."""
    root = tmp_path_factory.mktemp("source")
    for number, name in enumerate(["a.mp4", "day 1/-b=(é) 100%.mp4", "day 1/c.mp4"]):
        write_video(root / name, moving_square(8, seed=number))
    (root / "prompts.yaml").write_text(PROMPTS)
    return root


@pytest.fixture
def folder(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that contains only a copy of the videos, `my clips`."""
    shutil.copytree(source, tmp_path / "my clips")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def completed_folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a finished run of all videos."""
    folder = tmp_path_factory.mktemp("completed")
    shutil.copytree(source, folder / "my clips")
    assert run_in(folder, *COMMAND) == 0
    return folder


@pytest.fixture
def completed(completed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that contains a copy of the videos and the folder of a finished run."""
    shutil.copytree(completed_folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, root: str = "my clips") -> int:
    return main(["dataset=videos", f"dataset.root='{root}'", *FAST, *arguments])


def run_folder(folder: Path) -> Path:
    (path,) = (folder / "outputs" / "videos").iterdir()
    return path


def rows(path: Path) -> dict[str, dict[str, str]]:
    with (path / "summary.csv").open(newline="") as file:
        return {row["clip_id"]: row for row in csv.DictReader(file)}


def started(path: Path, work: str = "all") -> list[str]:
    """The clips that were computed, or with work="overlay" drawn, in all runs in the folder."""
    lines = [line for ledger in sorted(path.glob("ledger/**/*.jsonl")) for line in ledger.read_text().splitlines()]
    starts = [event for event in map(json.loads, lines) if event["event"] == "started"]
    return [event["clip_id"] for event in starts if event["work"] == work]


@pytest.mark.slow
def test_a_folder_of_videos_becomes_complete_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(LOCAL) == 0
    path = run_folder(folder)
    ids = ["a", "day 1/-b=(é) 100%", "day 1/c"]
    assert sorted(rows(path)) == ids
    for clip_id in ids:
        result = aot.load(path / "clips" / f"{clip_id}.h5")
        assert result.attributes["clip_id"] == clip_id
        assert len(result.index) == 8
        assert result.tracks.visible.any()
        assert (path / "overlays" / f"{clip_id}.mp4").stat().st_size > 1000
    listed = json.loads((path / "run.json").read_text())
    assert sorted(listed["clips"]) == ids
    assert listed["config_hash"].startswith(path.name[-8:])
    assert "3 clips: 3 done" in capsys.readouterr().out
    assert list(path.rglob("*.part")) == []


def test_the_same_command_again_computes_nothing(completed: Path) -> None:
    path = run_folder(completed)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*.h5")}
    assert run() == 0
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*.h5")} == before
    assert len(started(path)) == len(started(path, "overlay")) == 3


def test_missing_and_changed_clips_are_processed_again(completed: Path) -> None:
    path = run_folder(completed)
    (path / "clips" / "a.h5").unlink()
    (path / "overlays" / "day 1" / "c.mp4").unlink()
    assert run() == 0
    assert started(path)[3:] == ["a"]
    assert sorted(started(path, "overlay")[3:]) == ["a", "day 1/c"]
    write_video(completed / "my clips" / "a.mp4", moving_square(6))
    os.utime(completed / "my clips" / "day 1" / "c.mp4")  # a new modification time, the same content
    assert run() == 0
    assert started(path)[4:] == started(path, "overlay")[5:] == ["a"]
    assert len(aot.load(path / "clips" / "a.h5").index) == 6
    (completed / "my clips" / "prompts.yaml").write_text(PROMPTS + f"  a: {ENTRY.replace('28, 40', '30, 42')}\n")
    assert run() == 0
    assert started(path)[5:] == ["a"]


def test_results_survive_a_lost_ledger_and_a_moved_dataset(completed: Path) -> None:
    path = run_folder(completed)
    shutil.rmtree(path / "ledger")
    (completed / "my clips").rename(completed / "moved")
    assert run(root="moved") == 0
    assert started(path) == []


def test_another_dataset_never_overwrites_results(completed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(completed / "other" / "a.mp4", moving_square(5))
    (completed / "other" / "prompts.yaml").write_text(PROMPTS)
    assert run(root="other") == 2
    assert "another video" in capsys.readouterr().err
    assert len(aot.load(run_folder(completed) / "clips" / "a.h5").index) == 8


@pytest.mark.slow
def test_a_broken_clip_fails_without_the_others_and_is_not_retried(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my clips" / "a.mp4").write_text("not a video")
    assert run(LOCAL) == 1
    path = run_folder(folder)
    failure = json.loads((path / "failures" / "a.json").read_text())
    assert (failure["class"], failure["stage"]) == ("decode", "open")
    assert "DecodeError" in failure["traceback"]
    assert Path(failure["log"]).is_file()
    assert rows(path)["a"]["state"] == "failed"
    assert rows(path)["day 1/c"]["state"] == "done"
    assert run() == 1
    assert len(started(path)) == 3
    assert "1 failed before" in capsys.readouterr().out
    assert run("retry=[decode]") == 1
    assert started(path)[3:] == ["a"]
    shutil.copy(folder / "my clips" / "day 1" / "c.mp4", folder / "my clips" / "a.mp4")
    assert run() == 0, "a changed clip is retried without being asked to"
    assert not (path / "failures" / "a.json").exists()


def test_bad_input_loses_no_finished_work(folder: Path) -> None:
    assert run() == 0
    path = run_folder(folder)
    finished = {file: file.read_bytes() for name in ("clips/a.h5", "overlays/a.mp4") for file in [path / name]}
    (folder / "my clips" / "a.mp4").write_text("not a video")
    assert run() == 1
    assert {file: file.read_bytes() for file in finished} == finished


# A limit on the size of files instead of a full disk; it applies to the log as well.
FULL_DISK = """
import resource, sys
from aot.run import main
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_is_reported_in_one_line_per_clip(folder: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(aot.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *COMMAND], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 4, "three clips and the report: " + done.stderr
    assert "3 failed" in done.stdout
    assert all("could not be written: the file is larger than" in line for line in done.stderr.splitlines())
    assert list(run_folder(folder).rglob("*.h5")) == []


def test_the_command_line_is_recorded(folder: Path) -> None:
    assert run("frame_interval=3") == 0
    command = json.loads((run_folder(folder) / "run.json").read_text())["command"]
    assert command[1:] == [*COMMAND, "frame_interval=3"]


def test_a_failure_after_the_result_is_complete_is_reported(
    completed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(completed)
    result = next(path.glob("clips/*.h5"))
    result.unlink()
    overlay = path / "overlays" / f"{result.stem}.mp4"
    overlay.unlink(missing_ok=True)
    (overlay / "in the way").mkdir(parents=True)
    assert run() == 1
    assert result.exists()
    row = rows(path)[result.stem]
    assert row["state"] == "partial"
    assert "it is a folder, not a file" in row["error"]
    shutil.rmtree(overlay)
    assert run("retry=[all]") == 0


def test_unwritable_output_folder_starts_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "file").write_text("not a folder")
    assert run("output.root=file/outputs") == 2
    assert capsys.readouterr().err.splitlines() == [
        "output.root=file/outputs cannot be written, because file is a file; expected a folder that can be written: "
        "choose another one with output.root=FOLDER",
        "Nothing was started. `python -m aot.run --help` lists all options.",
    ]


UNPRIVILEGED = 65534


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can start a command as another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_unwritable_run_folder_is_accepted_if_nothing_needs_work(completed: Path) -> None:
    def run_unprivileged(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *("setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"),
                *(sys.executable, "-m", "aot.run", *COMMAND, *arguments),
            ],
            env=os.environ | {"PYTHONPATH": str(Path(aot.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    if run_unprivileged("--version").returncode:
        pytest.skip("another user cannot run this interpreter")
    for path in (completed, *completed.parents[:2], *(path for path in completed.rglob("*") if path.is_dir())):
        path.chmod(0o755)
    finished = run_unprivileged()
    assert finished.returncode == 0, finished.stderr
    assert "3 clips: 3 done" in finished.stdout
    assert "not updated: " in finished.stderr
    assert "Traceback" not in finished.stderr
    (run_folder(completed) / "clips" / "a.h5").unlink()
    unfinished = run_unprivileged()
    assert unfinished.returncode == 2
    assert "was not started: outputs/videos/grabcut" in unfinished.stderr
    assert "is not writable for this user; choose another folder with output.root=FOLDER" in unfinished.stderr
    assert unfinished.stderr.splitlines()[1:] == ["Nothing was started."]
    run_folder(completed).chmod(0o000)
    unreadable = run_unprivileged()
    assert unreadable.returncode == 2
    assert "cannot be read" in unreadable.stderr
    run_folder(completed).chmod(0o755)


@pytest.mark.long
def test_outdated_result_that_was_not_processed_is_not_success(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quick counterpart: test_results_that_were_not_computed_again_are_not_success in test_run_outcomes.py."""
    assert run(LOCAL) == 0
    write_video(folder / "my clips" / "a.mp4", moving_square(6))
    monkeypatch.setattr(LocalLauncher, "launch", lambda self, plan, tasks: lambda: None)
    capsys.readouterr()
    assert run(LOCAL) == 1
    assert "1 clip not processed, only earlier results exist" in capsys.readouterr().err


@pytest.mark.long
def test_clip_that_a_second_command_draws_again_at_the_end_was_processed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Quick counterpart: test_clip_that_ended_during_the_run_was_processed in test_run_outcomes.py."""
    launch = LocalLauncher.launch

    def remove_a_drawing_after_processing(self: LocalLauncher, plan: Plan, tasks: Sequence[ClipTask]) -> Wait:
        wait = launch(self, plan, tasks)

        def wait_and_remove() -> None:
            wait()
            plan.paths.clip("a").report.data.unlink()

        return wait_and_remove

    monkeypatch.setattr(LocalLauncher, "launch", remove_a_drawing_after_processing)
    assert run(LOCAL) == 0
    assert "not processed" not in capsys.readouterr().err


@pytest.mark.long
def test_run_that_starts_no_clip_is_success_only_if_all_are_finished(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick counterparts: test_launcher_that_does_not_wait_is_success and the next test in test_run_outcomes.py."""
    with monkeypatch.context() as patch:
        patch.setattr(LocalLauncher, "launch", lambda self, plan, tasks: lambda: None)
        assert run(LOCAL) == 1, "the launcher started nothing"
        patch.setattr(LocalLauncher, "launch", lambda self, plan, tasks: None)
        assert run(LOCAL) == 0, "as with launcher.wait=false"
    assert run(LOCAL, "dry_run=true") == 0
    assert started(run_folder(folder)) == []
    assert run(LOCAL) == 0
    monkeypatch.setattr(LocalLauncher, "launch", lambda self, plan, tasks: 1 / 0)
    assert run(LOCAL) == 0, "all clips are finished, and the launcher is not called"


def test_one_failed_object_makes_the_clip_partial(folder: Path) -> None:
    (folder / "my clips" / "prompts.yaml").write_text(
        "clips: {a: {objects: [{id: 1, box: [8, 20, 28, 40]}, {id: 2, box: [500, 20, 510, 40]}]}}"
    )
    assert run() == 1
    path = run_folder(folder)
    assert rows(path)["a"]["state"] == "partial"
    assert "object 2" in rows(path)["a"]["error"]
    assert aot.load(path / "clips" / "a.h5").object_error[0] == ""
    assert run() == 1, "a partial clip stays partial"


def test_a_pilot_run_is_part_of_the_full_run(folder: Path) -> None:
    assert run("dataset.limit=1") == 0
    path = run_folder(folder)
    assert started(path) == ["a"]
    assert run("dataset.exclude=['*/c']") == 0
    assert started(path)[1:] == ["day 1/-b=(é) 100%"]


@pytest.mark.long
def test_skipped_clips_without_a_prompt_are_reported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Quick counterpart: test_text_before_the_start in test_run_outcomes.py."""
    (folder / "my clips" / "prompts.yaml").write_text(f"clips: {{a: {ENTRY}}}")
    assert run() == 0
    assert "skipped without a prompt: 2 clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dataset.include=[nothing]"],
            "matches no clip of the dataset; it has 3 clips: a, day 1/-b=(é) 100%, day 1/c",
        ),
        (["dataset.prompts=none.yaml"], "none.yaml does not exist"),
        (["frame_interval=0"], "greater than or equal to 1"),
        (["retry=[a, nonsense]"], "nonsense is neither a clip id nor an error class"),
        (["dataset.exclude=['*']"], "no prompt for any of 0 chosen clips"),
    ],
)
def test_wrong_commands_start_nothing(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "outputs").exists()


def test_an_empty_folder_and_two_videos_with_the_same_clip_id(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "empty").mkdir()
    assert run(root="empty") == 2
    assert "contains no video" in capsys.readouterr().err
    shutil.copy(folder / "my clips" / "a.mp4", folder / "my clips" / "a.mkv")
    assert run() == 2
    assert "have the same clip id 'a'" in capsys.readouterr().err


def test_one_video_with_its_prompt_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = "dataset.path='my clips/day 1/-b=(é) 100%.mp4'"
    prompt = ["dataset.box=[8,20,28,40]", "dataset.points=[[18,30]]", "dataset.labels=[1]", "frame_interval=3"]
    assert main(["dataset=video", path, *prompt, *FAST]) == 0
    (result,) = (folder / "outputs" / "video").glob("*/clips/*.h5")
    assert aot.load(result).index.tolist() == [0, 3, 6]
    assert main(["dataset=video", path, "dataset.box=[8,20]"]) == 2
    assert "dataset.box" in capsys.readouterr().err
    assert main(["dataset=video", path]) == 2
    assert "expected one of them to locate the object" in capsys.readouterr().err
    assert main(["dataset=video", path, "dataset.mask=none.png"]) == 2
    assert "dataset.mask=none.png does not exist" in capsys.readouterr().err


def test_a_folder_of_frames_may_contain_other_folders(folder: Path) -> None:
    (folder / "frames" / "thumbs").mkdir(parents=True)
    for number, rgb in enumerate(moving_square(4)):
        Image.fromarray(rgb).save(folder / "frames" / f"{number}.png")
    video = ["dataset=video", "dataset.path=frames", "dataset.box=[8,20,28,40]", *FAST]
    assert main(video) == 0
    (path,) = (folder / "outputs" / "video").iterdir()
    Image.fromarray(rgb).save(folder / "frames" / "thumbs" / "0.png")
    assert main(video) == 0
    assert len(started(path)) == 1


def test_a_sweep_has_one_run_folder_per_value(folder: Path) -> None:
    shutil.copy(folder / "my clips" / "a.mp4", folder / "my clips" / "a2.mp4")
    (folder / "my clips" / "a.mp4").write_text("not a video")
    assert run("-m", "frame_interval=1,4", "dataset.include=[a,a2]") == 1
    (sweep,) = (folder / "outputs" / "videos").iterdir()
    assert sweep.name.startswith("sweep-")
    lengths = {path.name.split("-k")[1][0]: len(aot.load(path / "clips/a2.h5").index) for path in sweep.iterdir()}
    assert lengths == {"1": 8, "4": 2}
    assert all(rows(path)["a"]["state"] == "failed" for path in sweep.iterdir())


def test_sweep_with_one_unusable_run_folder_exits_1_because_others_ran(folder: Path) -> None:
    sweep_command = ("-m", "frame_interval=2,4")
    run(*sweep_command, "dataset.include=[a]")
    (sweep,) = (folder / "outputs" / "videos").iterdir()
    blocked = next(path for path in sweep.iterdir() if "-k4-" in path.name)
    shutil.rmtree(blocked)
    blocked.write_text("not a folder")
    assert run(*sweep_command) == 1
    assert any(sweep.glob("*-k2-*/clips/day 1/c.h5"))


def test_a_wrong_value_in_a_sweep_starts_nothing(folder: Path) -> None:
    assert run("-m", "frame_interval=1,0") == 2
    assert not (folder / "outputs").exists()


def test_help_and_cfg_print_only_what_concerns_the_user(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "dataset: davis, davis_2016, demo*, " in capsys.readouterr().out
    assert main(["--cfg", "job", "dataset=videos"]) == 0
    shown = capsys.readouterr().out
    assert "root: ???" in shown
    assert "hydra" not in shown
    assert main(["--nonsense"]) == 2
    assert list(folder.iterdir()) == [folder / "my clips"], "no files are created"


def exports() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules([str(Path(aot.__file__).parent / "export")]))


LIGHT_MODULES = {"the command": "aot.run", "the exports": ", ".join(f"aot.export.{name}" for name in exports())}


@pytest.mark.parametrize("modules", LIGHT_MODULES.values(), ids=LIGHT_MODULES)
def test_no_model_is_imported_by(modules: str) -> None:
    unwanted = {"torch", "sam2"} if "export" in modules else {"torch", "cv2", "sam2", "av"}
    code = f"import sys, {modules}; sys.exit(' '.join({unwanted!r} & set(sys.modules)) or 0)"
    environment = os.environ | {"PYTHONPATH": str(Path(aot.__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False, capture_output=True, text=True)
    assert not ended.returncode, ended.stderr
